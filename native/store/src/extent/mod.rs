//! See native/DESIGN.md.
