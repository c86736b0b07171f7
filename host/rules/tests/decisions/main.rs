//! What follows from what, case by case. Every test speaks to a shard as the driver does; a case is a line of data where it can be.

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod attempts;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod crews;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod ephemeral;
#[cfg(test)]
#[path = "../fixtures/trust.rs"]
mod fixtures;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod stepping;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod submissions;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod waits;
