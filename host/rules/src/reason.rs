//! The closed set of reason codes: why something was refused, stopped or failed. The API, the command line, the audit log and the documents
//! use these words and no others; the set grows only with a CHANGELOG line.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::id::text_serde;

macro_rules! reasons {
    ($($number:literal $name:ident $code:literal: $means:literal, $next:literal;)*) => {
        /// One reason code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(index_only)]
        pub enum Reason {
            $(#[doc = $means] #[n($number)] $name,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// The code as people read it: kebab-case.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code),* }
            }

            /// What it means, one sentence.
            #[must_use]
            pub fn means(self) -> &'static str {
                match self { $(Reason::$name => $means),* }
            }

            /// What to do about it, one sentence.
            #[must_use]
            pub fn next(self) -> &'static str {
                match self { $(Reason::$name => $next),* }
            }
        }
    };
}

reasons! {
    0 FuelExhausted "fuel-exhausted": "The attempt burned all the fuel that its limits gave it.", "Raise `limits.fuel` in the crew manifest (up to the tier), or give the agent less work per task.";
    1 MemoryLimit "memory-limit": "The agent asked for more memory than its limits allow and ended of it.", "Raise `limits.memory` or the tier, or split the input.";
    2 DeadlineExceeded "deadline-exceeded": "The attempt was still running at its wall deadline.", "Raise `limits.deadline`, or split the work; look at `skep task logs` for where it waited.";
    3 StackOverflow "stack-overflow": "The agent's call stack ran out.", "Bound the recursion in the agent.";
    4 HandleLimit "handle-limit": "The agent held more handles (files, streams, pollables) than its limits allow.", "Drop handles when they are no longer needed.";
    5 HostcallLimit "hostcall-limit": "One call handed the host more data than it takes at once.", "Hand data over in pieces of less than 1 MiB.";
    6 Trapped "trapped": "The agent's code trapped: a panic, an abort, a fault in its memory.", "Look at `skep task logs`: a panic prints its message there.";
    7 CapabilityDenied "capability-denied": "The agent used something that was not granted to it.", "Grant it in the crew manifest, if the plugin's manifest wants it and you mean it.";
    8 MountDenied "mount-denied": "A path outside the agent's mounts, or a write to a read-only one, was refused.", "Mount the directory, or grant `access = \"write\"`, if you mean it.";
    9 AddressDenied "address-denied": "A network address or name was refused: agents have no sockets.", "Nothing grants sockets; an agent that needs the network asks for `http`.";
    10 QuotaExceeded "quota-exceeded": "A quota in bytes, files or artifacts is used up.", "Raise the grant (`workspace`, `artifacts`), within what the plugin wants.";
    11 BodyLimit "body-limit": "A request or document is larger than the host takes.", "Send less: bodies hold 1 MiB, plugins 20 MiB, payloads 256 KiB.";
    12 RateLimited "rate-limited": "Something was done more often than its rate allows.", "Slow down; the answer says when to come back where that is known.";
    13 NotFound "not-found": "There is no such thing.", "List what there is; ids may be cut to a unique prefix.";
    14 IllegalTransition "illegal-transition": "The record is in a state from which this cannot be asked.", "Look at its state; the answer lists what is legal.";
    15 InvalidManifest "invalid-manifest": "A manifest does not parse, or contradicts the component or itself.", "Correct the place that the message names.";
    16 InvalidInput "invalid-input": "A request, a plan or an argument is not acceptable.", "Correct the place that the message names.";
    17 UnsupportedImport "unsupported-import": "The component imports something that this host does not offer.", "Build it for `wasm32-wasip2` against the WIT that `skep new` brings along.";
    18 CompileLimit "compile-limit": "The component is too large, too intricate to compile, or declares more than any tier allows.", "Make it smaller; `skep inspect` shows its size.";
    19 NotAComponent "not-a-component": "The file is not a WebAssembly component in binary form.", "Build with `skep build`; core modules, WAT text and precompiled code are not accepted.";
    20 Fenced "fenced": "The attempt no longer held its task when it ended.", "Nothing: a newer attempt holds the task.";
    21 Cancelled "cancelled": "It was cancelled on request.", "Submit it again, if that was not meant.";
    22 DependencyFailed "dependency-failed": "Something that the task waited for failed.", "Look at the failed dependency with `skep task tree`.";
    23 TimedOut "timed-out": "The task did not end within its overall time.", "Raise its timeout, or look at where the time went.";
    24 Overloaded "overloaded": "The host has no room for it just now.", "Try again later; the answer says when where that is known.";
    25 Verify "verify": "A checker refused the result three times.", "Read the checker's remarks in `skep task show`.";
    26 Error "error": "The agent itself reported a failure.", "Read its message in `skep task show`.";
    27 Unauthenticated "unauthenticated": "The request carries no valid token.", "Use the token in `admin.token` of the data directory (`--token`, `SKEP_TOKEN`).";
    28 Forbidden "forbidden": "The request comes from where it may not come from.", "Talk to the host by its loopback address.";
    29 IdempotencyMismatch "idempotency-mismatch": "The idempotency key was used before with another request.", "Use a new key for a new request.";
    30 Conflict "conflict": "Something of that name is there already, and it is not the same.", "Choose another name or version, or remove the old one.";
    31 DataDirectory "data-directory": "The data directory is locked, foreign, damaged or cannot be used.", "Run `skep doctor`; one host at a time may hold a data directory.";
    32 HostFault "host-fault": "The host itself failed: this is a bug of Skep, not of the agent.", "Please report it with the log lines around it.";
    33 Interrupted "interrupted": "The attempt was lost when its host stopped; it does not count.", "Nothing: the task runs again.";
    34 SignatureMissing "signature-missing": "The plugin comes without a signature.", "Sign it with `skep sign`, and send `name.wasm.sig` along; only `skep up --dev` takes unsigned plugins.";
    35 SignatureInvalid "signature-invalid": "The envelope is not one, or no signature in it holds.", "Sign the file again with `skep sign`; `skep verify --explain` names the first check that fails.";
    36 Modified "modified": "The file is not the one that was signed.", "Get the file again from its publisher, or sign it anew if it is yours.";
    37 SignerUntrusted "signer-untrusted": "It is signed, but by no key that is trusted for that name.", "Compare the key's words with its owner, then `skep key trust`.";
    38 ThresholdUnmet "threshold-unmet": "Fewer trusted keys signed it than must.", "Have another of the publisher's keys sign it: `skep sign --add`.";
    39 InvalidRelease "invalid-release": "The signed statement is not a release statement, or contradicts the file.", "Sign the file again with `skep sign`.";
    40 Expired "expired": "A release, a key or a document of trust is past its time.", "Ask its owner for a newer one; a document of trust is renewed by whoever signs it.";
    41 NotYetValid "not-yet-valid": "A release or a document of trust is not valid yet.", "Wait, or set the clock of this machine right.";
    42 Rollback "rollback": "Something newer was seen before: this is an older release or document.", "Install the newest release; `--allow-downgrade REASON` installs an older one on the record.";
    43 Revoked "revoked": "The key, the file or the release was revoked.", "Do not run it; ask its publisher for a release that is not revoked.";
    44 ApprovalRequired "approval-required": "The update asks for more than the release that is installed, and nobody has approved that.", "Read `skep plugin diff`, then install it again and approve.";
    45 FirstContact "first-contact": "No release of this publisher, or of this plugin, is here to compare it with, and nobody has typed the publisher's name.", "Install it again and type the name: `--publisher NAME`.";
    46 CeilingExceeded "ceiling-exceeded": "The plugin wants more than its publisher may be given on this host.", "Raise the publisher's ceiling with `skep key trust`, if you mean it.";
    47 InvalidMetadata "invalid-metadata": "A document of trust is not one, or says something that cannot be.", "Correct the place that the message names and sign it again.";
    48 UnsupportedHost "unsupported-host": "The plugin needs a newer contract than this host offers.", "Update Skep, or install an older release.";
    49 Diverged "diverged": "An attempt that was continued did something else than its record says.", "`skep replay TASK` shows where; a mount may have changed, or the agent depends on something that is not recorded.";
    50 RecordFull "record-full": "The record of the task holds all the steps, or bytes, that one may have.", "Have the agent go on with `tasks.continue`, which begins an empty record.";
    51 BudgetExhausted "budget-exhausted": "A budget of the task is used up: its children, its depth, the size of its tree.", "Raise `grants.tasks.children`, or spread the work over more objectives.";
    52 Preempted "preempted": "The attempt gave its task back in order, because its host stops; it does not count.", "Nothing: the task goes on where its record ends.";
    60 DeadLetter "dead-letter": "The task failed for good and is kept as a dead letter.", "Look at its history in `skep task show`; `skep task redrive` submits it anew.";
    61 StaleRevision "stale-revision": "The record has changed since it was read.", "Read it again and decide anew.";
    62 PreconditionRequired "precondition-required": "A change of a record must say which revision of it was read.", "Send the `ETag` of the answer that you read as `If-Match`.";
    63 Paused "paused": "A person paused it.", "`skep task resume` lets it go on.";
    80 NoListener "no-listener": "Nobody who could receive the message listens to its subject.", "Look at who has a mailbox and which topics `grants.messages.receive` has.";
    81 MessageExpired "message-expired": "The message was not received before its time was over.", "Send it with a longer time to live, or look at what its receiver waits for.";
    82 UnsupportedVersion "unsupported-version": "The message has a version of the envelope that this host does not speak.", "Send it as version 1.0, or update Skep.";
    100 Rejected "rejected": "A person was asked and said no.", "Read the remark in `skep approval show`; submit the task again when what stood against it is gone.";
    101 ApprovalExpired "approval-expired": "A person was asked and did not decide in time.", "Ask again, with more time (`expires`) or with `onTimeout: escalate`; open questions are in `skep approval ls`.";
    102 SelfApproval "self-approval": "Whoever wants something approved cannot be the one who approves it.", "Have somebody else decide; `[approvals] by_requester = true` in the crew manifest allows it.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The text is not a reason code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a reason code")]
pub struct Unknown(String);

impl FromStr for Reason {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let found = Reason::ALL.iter().copied().find(|reason| reason.code() == text);
        found.ok_or_else(|| Unknown(text.chars().take(80).collect()))
    }
}

use serde::{Deserialize, Serialize};
text_serde!(Reason);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_kebab_case_and_reads_back() {
        for reason in Reason::ALL {
            assert!(
                reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{reason}"
            );
            assert_eq!(reason.code().parse(), Ok(*reason));
            assert!(
                reason.means().ends_with('.') && reason.next().ends_with('.'),
                "{reason}"
            );
        }
    }
}
