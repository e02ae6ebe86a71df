//! Files into monitors.
