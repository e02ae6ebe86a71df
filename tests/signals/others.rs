//! Others
