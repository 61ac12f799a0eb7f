//! A daemon's identity towards its peers: a key pair and a certificate that is pinned, never looked up.

use crate::call::{Answer, answer};
use holdfast_store::error::{Error, Kind};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, SerialNumber, date_time_ymd,
};

/// DER both: an X.509 certificate, a PKCS #8 private key.
#[napi(object)]
pub struct Identity {
    pub certificate: Buffer,
    pub private_key: Buffer,
}

/// Makes a key pair (ECDSA on P-256) and a certificate signed with it.
///
/// - The certificate is valid from 1970 to the end of 9999, which RFC 5280 §4.1.2.5 reads as "no expiry": peers pin the
///   key, so a date would only take a site off the air, and a clock that is set back must not either.
/// - It is no CA: a peer cannot vouch for another.
#[napi(ts_return_type = "Identity | Failure")]
pub fn identity_create() -> Answer<Identity> {
    answer(create().map_err(|error| Error::new(Kind::Internal, format!("making an identity: {error}"))))
}

fn create() -> Result<Identity, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    // A name of its own: of two pins with one name OpenSSL would find the first only, and refuse the other peer.
    let number: String = key.public_key_raw().iter().skip(1).take(8).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("holdfast {number}"));
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.serial_number = Some(SerialNumber::from(1u64));
    let certificate = params.self_signed(&key)?;
    Ok(Identity { certificate: certificate.der().to_vec().into(), private_key: key.serialize_der().into() })
}
