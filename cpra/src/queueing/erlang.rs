//! Erlang's two formulas, by the recursion that neither overflows nor loses digits.
//!
//! With `a` erlangs on `c` servers, B is the share of the arrivals that find all of them busy and leave (A. K. Erlang,
//! 1917), C the share that finds them busy and waits. The recursion runs on `x = 1/B`: `x₀ = 1`, `xₙ = 1 + n/a · xₙ₋₁`,
//! which is a sum of positive terms. The textbook sums of powers and factorials overflow from about 710 erlangs on.
//!
//! Below `a` each step multiplies an error of `x` by `n/a`. So the recursion may begin ten deviations below `a` with
//! nearly any value: what is wrong with it has been multiplied by `e⁻⁵⁰` when it gets to `a`. That makes it as long as the square
//! root of `a`, and as exact.

/// Erlang B for one more server at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErlangB {
    offered: f64,
    servers: u32,
    /// `1/B`.
    inverse: f64,
}

impl ErlangB {
    /// Exact from `offered` servers on, rounded up; below that only where `offered` is small.
    pub fn new(offered: f64) -> Self {
        let start = (offered - 10.0 * offered.sqrt()).floor();
        if start < 1.0 {
            return Self { offered, servers: 0, inverse: 1.0 };
        }
        // 1 - B ≈ n/a where nearly everybody is blocked.
        Self { offered, servers: start as u32, inverse: 1.0 / (1.0 - start / offered) }
    }

    /// With `servers` of them, at least as many as there are.
    #[must_use]
    pub fn grown_to(mut self, servers: u32) -> Self {
        while self.servers < servers {
            // Beyond all numbers, and it stays there: nobody is blocked.
            if self.inverse.is_infinite() {
                self.servers = servers;
                break;
            }
            self.servers += 1;
            self.inverse = 1.0 + f64::from(self.servers) / self.offered * self.inverse;
        }
        self
    }

    pub const fn servers(self) -> u32 {
        self.servers
    }

    /// The share that is blocked.
    pub fn blocked(self) -> f64 {
        1.0 / self.inverse
    }

    /// The share that waits: Erlang C. All of them where the servers do not suffice.
    pub fn waits(self) -> f64 {
        let used = self.offered / f64::from(self.servers);
        if used >= 1.0 {
            return 1.0;
        }
        let blocked = self.blocked();
        blocked / (1.0 - used * (1.0 - blocked))
    }
}

#[cfg(test)]
mod tests;
