//! The only crate that names napi: convert, call, convert back.
