//! Ordered, versioned records on the drives: memtables, tables, the trees NOW and THEN.

pub mod io;
