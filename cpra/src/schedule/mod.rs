//! Time wheels and phases: pure.
