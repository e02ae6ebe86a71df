//! Traces
