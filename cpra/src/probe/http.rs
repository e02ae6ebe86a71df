//! stub
use super::{Judgement, Ops, Request};
use crate::domain::{Code, Outcome};
use crate::ring::Completion;
use crate::units::Instant;
#[derive(Debug)]
pub struct HttpProbe {}
impl HttpProbe {
    pub fn start(_request: &Request<'_>, _now: Instant, _ops: &mut Ops) -> Self {
        Self {}
    }
    pub fn resume(_request: &Request<'_>, _now: Instant, _ops: &mut Ops) -> Self {
        Self {}
    }
    pub fn on(
        &mut self,
        _request: &Request<'_>,
        _completion: &Completion<'_>,
        _now: Instant,
        _ops: &mut Ops,
    ) -> Option<Judgement> {
        None
    }
    pub fn expire(&self, _request: &Request<'_>, _now: Instant) -> Outcome {
        Outcome::of(Code::L7Tout)
    }
}
