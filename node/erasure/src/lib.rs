//! Reed-Solomon behind one small interface.
