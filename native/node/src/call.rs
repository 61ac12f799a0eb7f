//! How a call runs and how it fails.

use holdfast_store::error::{Error, Kind};
use napi::bindgen_prelude::{Either, Object, ToNapiValue};
use napi::{Env, JsDeferred, Status};
use napi_derive::napi;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls that run at the same time at most; the next one is answered with `Unavailable`.
const CALLS_MAX: usize = 64;
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// What the caller can do about a failure. The same words as the command line's exit codes.
#[napi(string_enum)]
pub enum FailureCode {
    Internal,
    Invalid,
    NotFound,
    Conflict,
    Denied,
    Unavailable,
    Corrupt,
    Fenced,
    NoSpace,
    Closed,
}

/// A failure as data.
#[napi(object)]
pub struct Failure {
    pub failure: FailureCode,
    /// Names the object and the way out.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = match error.kind {
            // No thread that calls from JavaScript is in a hurry.
            Kind::Internal | Kind::WouldWait => FailureCode::Internal,
            Kind::Invalid => FailureCode::Invalid,
            Kind::NotFound => FailureCode::NotFound,
            Kind::Conflict => FailureCode::Conflict,
            Kind::Denied => FailureCode::Denied,
            Kind::Unavailable => FailureCode::Unavailable,
            Kind::Corrupt => FailureCode::Corrupt,
            Kind::Fenced => FailureCode::Fenced,
            Kind::NoSpace => FailureCode::NoSpace,
            Kind::Closed => FailureCode::Closed,
        };
        Self { failure, message: error.message }
    }
}

/// A system error, with the sentence that names what was tried on what.
pub fn system_error(what: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::ResourceBusy | ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => Kind::Conflict,
        ErrorKind::PermissionDenied => Kind::Denied,
        ErrorKind::InvalidInput | ErrorKind::InvalidFilename | ErrorKind::NotADirectory => Kind::Invalid,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::NoSpace,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("{what}: {error}"))
}

pub type Answer<T> = Either<T, Failure>;

pub fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    match result {
        Ok(value) => Either::A(value),
        Err(error) => Either::B(error.into()),
    }
}

type Resolver<T> = Box<dyn FnOnce(Env) -> napi::Result<Answer<T>> + Send>;

/// Gives the place back when the call ends, however it ends.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        if CALLS.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
            CALLS.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `run` on a thread of its own; the promise fulfils with its value or a `Failure`, and never rejects.
pub fn in_thread<'env, T>(
    env: &'env Env,
    name: &str,
    run: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    let (deferred, promise): (JsDeferred<Answer<T>, Resolver<T>>, _) = env.create_deferred()?;
    let Some(place) = Place::take() else {
        let busy = Error::new(Kind::Unavailable, format!("{name}: {CALLS_MAX} calls are running; try again"));
        deferred.resolve(Box::new(move |_| Ok(answer(Err(busy)))));
        return Ok(promise);
    };
    let on_thread = deferred.clone();
    let spawned = holdfast_device::threads::spawn(name, move || {
        let _place = place;
        let result = run();
        on_thread.resolve(Box::new(move |_| Ok(answer(result))));
    });
    if let Err(error) = spawned {
        let error = system_error(&format!("{name}: cannot start a thread"), &error);
        deferred.resolve(Box::new(move |_| Ok(answer(Err(error)))));
    }
    Ok(promise)
}

/// The promise fulfils with what is known already.
pub fn at_once<'env, T>(env: &'env Env, result: Result<T, Error>) -> napi::Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
{
    let (deferred, promise): (JsDeferred<Answer<T>, Resolver<T>>, _) = env.create_deferred()?;
    deferred.resolve(Box::new(move |_| Ok(answer(result))));
    Ok(promise)
}

/// What is thrown for an argument of a wrong type or range.
pub fn bad_argument(message: impl Into<String>) -> napi::Error {
    napi::Error::new(Status::InvalidArg, message.into())
}
