//! Words for a moment: ISO 8601 (local, UTC or with an offset), `-5m`, `yesterday 14:00`, `14:00`, an LSN.

use crate::error::{Error, Result};
use crate::group::When;
use holdfast_format::Lsn;
use holdfast_format::inode::Time;
use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan};

/// The time zone that words without one are meant in: the daemon's.
#[derive(Clone)]
pub struct Zone(TimeZone);

impl Zone {
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// By its name, `Europe/Berlin`.
    pub fn named(name: &str) -> Result<Self> {
        TimeZone::get(name).map(Self).map_err(|_| Error::invalid(format!("no time zone {name}")))
    }
}

const FORMS: &str = "use 2026-11-22T10:31:07Z (or without Z: local time), \"2026-11-22 10:31\", 10:31, \"yesterday 14:00\", \
                     -90s, -5m, -2h, -3d, lsn:NUMBER, or the name of a snapshot";

fn stamp(time: Time) -> Result<Timestamp> {
    Timestamp::new(time.sec, time.nsec as i32).map_err(|_| Error::invalid("the clock is out of range"))
}

fn of(timestamp: Timestamp) -> Time {
    let nanoseconds = timestamp.as_nanosecond();
    let (sec, nsec) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    Time { sec: sec as i64, nsec: nsec as u32 }
}

/// # Errors
/// `Invalid`: not understood, in the future, or a local time that the clocks showed twice or never.
pub fn parse_when(text: &str, now: Time, zone: &Zone) -> Result<When> {
    let text = text.trim();
    if let Some(lsn) = lsn(text) {
        return Ok(When::Lsn(lsn));
    }
    let present = stamp(now)?;
    let moment = match text.strip_prefix('-') {
        Some(ago) => before(present, ago, text)?,
        None => named(text, present, zone)?,
    };
    if moment > present {
        let (then, present) = (moment.strftime("%FT%TZ"), present.strftime("%FT%TZ"));
        return Err(Error::invalid(format!("{text:?} is in the future: {then}; it is {present} now")));
    }
    Ok(When::Time(of(moment)))
}

/// How a kept point's moment is written, so that the words name that point: rounded up to milliseconds.
pub fn point_name(time: Time) -> String {
    let milliseconds = time.sec as i128 * 1000 + i128::from(time.nsec.div_ceil(1_000_000));
    let rounded = Timestamp::from_millisecond(milliseconds as i64);
    rounded.map_or_else(|_| time.sec.to_string(), |rounded| rounded.strftime("%FT%T.%3fZ").to_string())
}

fn lsn(text: &str) -> Option<Lsn> {
    let digits = ["lsn:", "LSN:", "lsn ", "LSN "].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok().map(Lsn) } else { None }
}

fn unclear(text: &str) -> Error {
    Error::invalid(format!("{text:?} is no time: {FORMS}"))
}

/// `5m`, `1h30m`, `2d`: how long before the present.
fn before(present: Timestamp, ago: &str, text: &str) -> Result<Timestamp> {
    let mut seconds: i64 = 0;
    let mut rest = ago;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let number: i64 = number.parse().map_err(|_| unclear(text))?;
        let (unit_s, used) = match unit.as_bytes() {
            [b'm', b'i', b'n', ..] => (60, 3),
            [b's', ..] => (1, 1),
            [b'm', ..] => (60, 1),
            [b'h', ..] => (3600, 1),
            [b'd', ..] => (86_400, 1),
            [b'w', ..] => (604_800, 1),
            _ => return Err(unclear(text)),
        };
        seconds = number.checked_mul(unit_s).and_then(|more| seconds.checked_add(more)).ok_or_else(|| unclear(text))?;
        rest = &unit[used..];
    }
    if ago.is_empty() {
        return Err(unclear(text));
    }
    let span = Span::new().try_seconds(seconds).map_err(|_| unclear(text))?;
    present.checked_sub(span).map_err(|_| unclear(text))
}

/// A moment by date and time of day.
fn named(text: &str, present: Timestamp, zone: &Zone) -> Result<Timestamp> {
    if text == "now" {
        return Ok(present);
    }
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Ok(exact);
    }
    let today = present.to_zoned_datetime(zone.0.clone()).date();
    let (day, time) = match text.split_once([' ', '_', 'T']) {
        Some((day, time)) => (day, time),
        None if text.contains(':') => ("today", text),
        None => (text, ""),
    };
    let date = match day {
        "today" => today,
        "yesterday" => today.checked_sub(1.day()).map_err(|_| unclear(text))?,
        day => day.parse::<civil::Date>().map_err(|_| unclear(text))?,
    };
    let time = match time.trim() {
        "" if matches!(day, "today" | "yesterday") => return Err(Error::invalid(format!("{text:?}: at what time? {day} 14:00"))),
        "" => civil::Time::midnight(),
        time => time.parse::<civil::Time>().map_err(|_| unclear(text))?,
    };
    local(date.to_datetime(time), text, zone)
}

/// What the clocks showed once is a moment; what they showed twice, or never, is none.
fn local(shown: civil::DateTime, text: &str, zone: &Zone) -> Result<Timestamp> {
    let moment = zone.0.to_ambiguous_timestamp(shown);
    if !moment.is_ambiguous() {
        return moment.unambiguous().map_err(|_| unclear(text));
    }
    let show = |moment: std::result::Result<Timestamp, jiff::Error>| {
        moment.map_or_else(|_| "?".to_owned(), |moment| moment.strftime("%FT%TZ").to_string())
    };
    let (earlier, later) = (show(moment.earlier()), show(moment.later()));
    Err(Error::invalid(match matches!(moment.offset(), AmbiguousOffset::Fold { .. }) {
        true => format!("{text:?} was twice, as the clocks went back: say {earlier} or {later}"),
        false => format!("{text:?} never was, as the clocks went forward: say {earlier} or {later}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T10:31:07.5Z, a Sunday.
    const NOW: Time = Time { sec: 1_795_343_467, nsec: 500_000_000 };

    fn when(text: &str, zone: &Zone) -> std::result::Result<String, String> {
        match parse_when(text, NOW, zone) {
            Ok(When::Time(time)) => Ok(stamp(time).unwrap().to_string()),
            Ok(When::Lsn(lsn)) => Ok(format!("LSN {lsn}")),
            Ok(When::Name(name)) => Ok(name),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn words_name_moments() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        for (text, utc, local) in [
            ("2026-11-22T10:31:07Z", "2026-11-22T10:31:07Z", None),
            ("2026-11-22T10:31:07.25Z", "2026-11-22T10:31:07.25Z", None),
            ("2026-11-22T11:31:07+01:00", "2026-11-22T10:31:07Z", None),
            ("2026-11-22T10:31:07", "2026-11-22T10:31:07Z", Some("2026-11-22T09:31:07Z")),
            ("2026-11-22 10:31", "2026-11-22T10:31:00Z", Some("2026-11-22T09:31:00Z")),
            ("2026-11-22_10:31", "2026-11-22T10:31:00Z", Some("2026-11-22T09:31:00Z")),
            ("2026-11-21", "2026-11-21T00:00:00Z", Some("2026-11-20T23:00:00Z")),
            ("10:31", "2026-11-22T10:31:00Z", Some("2026-11-22T09:31:00Z")),
            ("today 00:00", "2026-11-22T00:00:00Z", Some("2026-11-21T23:00:00Z")),
            ("yesterday 14:00", "2026-11-21T14:00:00Z", Some("2026-11-21T13:00:00Z")),
            ("now", "2026-11-22T10:31:07.5Z", None),
            ("-5m", "2026-11-22T10:26:07.5Z", None),
            ("-5min", "2026-11-22T10:26:07.5Z", None),
            ("-1h30m", "2026-11-22T09:01:07.5Z", None),
            ("-90s", "2026-11-22T10:29:37.5Z", None),
            ("-2d", "2026-11-20T10:31:07.5Z", None),
            ("-1w", "2026-11-15T10:31:07.5Z", None),
            ("12345", "LSN 12345", None),
            ("lsn:77", "LSN 77", None),
        ] {
            assert_eq!(when(text, &Zone::utc()).as_deref(), Ok(utc), "{text}");
            assert_eq!(when(text, &berlin).as_deref(), Ok(local.unwrap_or(utc)), "{text} in Berlin");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_what_would_be() {
        for text in ["", "-", "-5", "-5y", "soon", "2026-13-01", "yesterday", "yesterday noon", "25:00", "-99999999999999999999s"] {
            let error = when(text, &Zone::utc()).expect_err(text);
            assert!(error.contains("is no time") || error.contains("at what time"), "{text}: {error}");
        }
        for text in ["2026-11-22T10:31:08Z", "11:00", "2027-01-01", "today 23:59"] {
            assert!(when(text, &Zone::utc()).expect_err(text).contains("in the future"), "{text}");
        }
    }

    #[test]
    fn a_local_time_that_was_twice_or_never_names_both_ways_out() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let twice = when("2026-10-25T02:30:00", &berlin).unwrap_err();
        assert!(twice.contains("2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z"), "{twice}");
        let never = when("2026-03-29T02:30:00", &berlin).unwrap_err();
        assert!(never.contains("never was") && never.contains("2026-03-29T00:30:00Z"), "{never}");
    }

    #[test]
    fn a_points_name_means_that_point() {
        for nsec in [0, 1, 999_999, 1_000_000, 312_000_001, 999_999_999] {
            let wall = Time { sec: NOW.sec - 10, nsec };
            let Ok(When::Time(meant)) = parse_when(&point_name(wall), NOW, &Zone::utc()) else { panic!("{nsec}") };
            assert!(meant >= wall && meant.nsec / 1_000_000 <= nsec.div_ceil(1_000_000) % 1000, "{nsec}: {meant:?}");
        }
        assert_eq!(point_name(NOW), "2026-11-22T10:31:07.500Z");
    }
}
