//! What the providers of the web have in common: requests that go out beside each other, what an answer means unless a
//! provider's contract says otherwise, and what may be said of it.
//!
//! A provider has its notices sent as many at a time as its pace says, and gives up on the rest of a batch when one finds
//! nobody there, or is told to wait: the others would only find the same, each after its own timeout. They answer with
//! [`DeliveryResult::Failed`] like the one that tried.
//!
//! What the other side says is kept for people, bounded, as one line, with all that is a secret taken out: servers like
//! to repeat the address that they were asked for.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::Poll;

use crate::desk::protocol::{Delivered, DeliveryResult};
use crate::domain::monitor::Secret;
use crate::domain::{Destination, Notice};
use crate::os::web::{Again, Answer, Connections, Fault, Request, Web};
use crate::units::Span;
use crate::units::limits::EVIDENCE_MAX;
use crate::wording::{cut, line};

#[derive(Debug)]
pub struct Exchange {
    connections: Connections,
    again: Again,
    concurrency: usize,
    secrets: Secrets,
    /// Why nothing more is sent for now.
    trouble: RefCell<Option<Delivered>>,
}

/// Texts that must not be seen. Its own `Debug` shows none of them.
struct Secrets(Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secrets)")
    }
}

/// What is shorter is a word like any other: to take each `a` out would say more than it hides.
const SECRET_MIN: usize = 4;
/// The same for a part of an address.
const SECRET_PART_MIN: usize = 8;

impl Secrets {
    /// Also the parts of those that are addresses.
    fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<String> = Vec::new();
        for secret in secrets {
            all.push(secret.to_owned());
            if let Some((_, rest)) = secret.split_once("://") {
                let parts = rest.split(['/', '?', '&', '=', '#', '@', ':']).skip(1);
                all.extend(parts.filter(|part| part.len() >= SECRET_PART_MIN).map(str::to_owned));
            }
        }
        all.retain(|secret| secret.len() >= SECRET_MIN);
        // The longest first: they may hold others.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    fn taken_out(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "(secret)"))
    }
}

impl Exchange {
    /// `secrets` are those that requests hold.
    pub fn new<'a>(
        destination: &'a Destination,
        web: &Web,
        again: Again,
        secrets: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let proxy = destination.transport.proxy.as_ref().map(Secret::expose);
        Self {
            connections: Connections::new(web, &destination.transport, again),
            again,
            concurrency: usize::try_from(destination.pace.concurrency).unwrap_or(usize::MAX).max(1),
            secrets: Secrets::new(secrets.into_iter().chain(proxy)),
            trouble: RefCell::new(None),
        }
    }

    /// Delivers as many at a time as may be, and answers in their order.
    pub async fn each<'a, F: Future<Output = Delivered>>(
        &self,
        notices: &[&'a Notice],
        deliver: impl Fn(&'a Notice) -> F,
    ) -> Vec<Delivered> {
        self.begin();
        let mut results = Vec::with_capacity(notices.len());
        for together in notices.chunks(self.concurrency) {
            match self.trouble() {
                Some(trouble) => results.extend(together.iter().map(|_| trouble.clone())),
                None => results.extend(join(together.iter().map(|notice| deliver(notice))).await),
            }
        }
        results
    }

    /// A new batch, a new hope.
    pub fn begin(&self) {
        self.trouble.replace(None);
    }

    /// What those that have not been tried by now are to be answered with.
    pub fn trouble(&self) -> Option<Delivered> {
        self.trouble.borrow().clone()
    }

    /// # Errors
    /// What it means that there was no answer.
    pub async fn send(&self, request: Request<'_>) -> Result<Answer, Delivered> {
        let fault = match self.connections.send(&request).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        let (result, words) = match fault {
            Fault::Unusable(words) => return Err(self.delivered(DeliveryResult::Refused, &words)),
            Fault::NotSent(words) => (DeliveryResult::Failed, words),
            Fault::Unanswered(words) if self.again == Again::Known => (DeliveryResult::Failed, words),
            Fault::Unanswered(words) => (DeliveryResult::Unsure, words),
        };
        let delivered = self.delivered(result, &words);
        // Those that were not tried have surely not arrived.
        let untried = Delivered { result: DeliveryResult::Failed, ..delivered.clone() };
        self.trouble.replace(Some(untried));
        Err(delivered)
    }

    /// What a status means where the contract says nothing else: 2xx that it has arrived, 408, 425, 429 and 5xx that it
    /// may come again, everything else that it would be wrong again.
    pub fn usual(&self, answer: &Answer, words: &str) -> Delivered {
        match answer.status {
            200..=299 => self.said(DeliveryResult::Sent, answer, words),
            300..=399 => {
                let elsewhere = answer.elsewhere.as_deref().unwrap_or("elsewhere");
                self.said(DeliveryResult::Refused, answer, &format!("redirected to {elsewhere}: give that address"))
            }
            408 | 425 | 429 | 500.. => self.again(answer, words),
            _ => self.said(DeliveryResult::Refused, answer, words),
        }
    }

    /// The same where machines answer each other: a page with 200 is of a proxy or a login in between, which says so to
    /// everything.
    pub fn usual_of_machines(&self, answer: &Answer, words: &str) -> Delivered {
        if matches!(answer.status, 200..=299) && answer.body.trim_ascii_start().starts_with(b"<") {
            return self.said(DeliveryResult::Failed, answer, "with a page: somebody else answers there");
        }
        self.usual(answer, words)
    }

    /// Not this time, and nothing else before the other side wants it.
    pub fn again(&self, answer: &Answer, words: &str) -> Delivered {
        // 429 is too much of everything, also where it does not say for how long.
        let after = answer.retry_after.or_else(|| (answer.status == 429).then_some(Span::ZERO));
        let delivered = Delivered { after, ..self.said(DeliveryResult::Failed, answer, words) };
        if matches!(answer.status, 429 | 503) {
            self.trouble.replace(Some(delivered.clone()));
        }
        delivered
    }

    /// `202 Event processed`.
    pub fn said(&self, result: DeliveryResult, answer: &Answer, words: &str) -> Delivered {
        self.delivered(result, &format!("{} {words}", answer.status))
    }

    fn delivered(&self, result: DeliveryResult, words: &str) -> Delivered {
        // Before it is cut: half a secret is one, too.
        let words = line(&self.secrets.taken_out(words));
        Delivered::new(result, cut(words.trim().to_owned(), EVIDENCE_MAX))
    }
}

/// A body in words; nothing where it is a page or no text at all.
pub fn words(answer: &Answer) -> &str {
    let text = str::from_utf8(&answer.body).unwrap_or_default().trim();
    if text.starts_with('<') { "" } else { text }
}

/// All of them, each answer in its place.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    type Waiting<F> = (Pin<Box<F>>, Option<<F as Future>::Output>);
    let mut waiting: Vec<Waiting<F>> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
pub(super) mod tests;
