//! Every bound of Skep, each with its reason, and the tiers that bound an agent. Nothing that a guest, a client or a file can make grow is
//! without a line here.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::text_serde,
    quantity::{Fuel, Millis, Size},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A component file. Larger ones take minutes to compile.
pub const MAX_COMPONENT_BYTES: u64 = 16 * MIB;
/// The embedded manifest: a document for people.
pub const MAX_MANIFEST_BYTES: usize = 64 << 10;
/// Core modules inside a component. A toolchain makes up to about ten.
pub const MAX_MODULES: u32 = 32;
/// Core and component instances inside a component.
pub const MAX_INSTANCES: u32 = 64;
/// Components nested in a component.
pub const MAX_NESTED_COMPONENTS: u32 = 8;
/// How deep components nest.
pub const MAX_NESTING: u32 = 4;
/// Functions of a component: 100,000 empty ones take nine seconds and 600 MiB to compile.
pub const MAX_FUNCTIONS: u32 = 50_000;
/// One function: with many values live at once, time to compile grows more than six-fold when it doubles.
pub const MAX_FUNCTION_BYTES: usize = 256 << 10;
/// Locals of one function: 8,000 of them in nested loops take half a minute to compile.
pub const MAX_LOCALS: u32 = 2_000;
/// Targets of one branch table.
pub const MAX_BRANCH_TARGETS: u32 = 4_096;
/// Data and element segments of a component.
pub const MAX_SEGMENTS: u32 = 10_000;

/// A payload that travels inline: what a record of the journal can hold without making frames slow.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 10;
/// An artifact: one blob is held in memory while it is written.
pub const MAX_ARTIFACT_BYTES: u64 = 10 * MIB;
/// One piece of an artifact: less than what one host call may hand over.
pub const MAX_PIECE_BYTES: usize = (1 << 20) - 1;
/// Artifacts that one attempt may be writing at a time.
pub const MAX_WRITERS: usize = 4;
/// A media type.
pub const MAX_MEDIA_BYTES: usize = 128;

/// Nodes of one plan, and of all plans under one objective.
pub const MAX_PLAN_NODES: usize = 1_000;
/// Dependencies of one node: an integration task waits for all the others.
pub const MAX_DEPENDENCIES: usize = 1_000;
/// How deep tasks nest: an objective, its plan, what that decomposes into.
pub const MAX_TASK_DEPTH: u32 = 8;
/// A description, a remark of a checker, a message of a failure; the rest is cut.
pub const MAX_TEXT_BYTES: usize = 4 << 10;
/// Notes given along with an objective.
pub const MAX_NOTES: usize = 32;
/// All of them together: what a planner is handed, which is one payload more.
pub const MAX_NOTE_BYTES: usize = MAX_PAYLOAD_BYTES;
/// Fields of one input that other tasks fill.
pub const MAX_SLOTS: usize = 16;
/// A schema of an output or a slot, of which a plan may have thousands.
pub const MAX_SCHEMA_BYTES: usize = 4 << 10;
/// How deep one nests: it is walked by recursion.
pub const MAX_SCHEMA_DEPTH: usize = 16;
/// Comparisons for all slots of one plan, and for one output: some tens of milliseconds, during which the shard does nothing else. An output of the size of
/// a payload has fewer values.
pub const MAX_SCHEMA_STEPS: usize = 200_000;
/// Roles of one agent or task.
pub const MAX_ROLES: usize = 16;
/// Labels of a task.
pub const MAX_LABELS: usize = 16;
/// How often a task may be tried again unless it says otherwise: 1 + 3 executions.
pub const DEFAULT_RETRIES: u32 = 3;
/// The most retries that a task may ask for.
pub const MAX_RETRIES: u32 = 100;
/// The first retry delay unless a policy says otherwise; it doubles, up to [`RETRY_CAP_FACTOR`] times as long.
pub const RETRY_INITIAL: Millis = Millis(1_000);
/// The longest delay that an agent may ask for.
pub const RETRY_ADVICE_CAP: Millis = Millis(3_600_000);
/// The longest delay that a task's own policy may set, for its first retry and as its cap: a task that should wait longer is a schedule.
pub const MAX_RETRY_DELAY: Millis = Millis(86_400_000);
/// The cap of a policy that sets none, in first delays.
pub const RETRY_CAP_FACTOR: u64 = 100;
/// By how much delays grow, in hundredths, unless a policy says otherwise.
pub const RETRY_FACTOR: u32 = 200;
/// The least and the most that a policy may have them grow by: below one they would shrink, and tenfold reaches a day in seven retries.
pub const RETRY_FACTORS: std::ops::RangeInclusive<u32> = 100..=1_000;
/// By how many hundredths a delay is shorter or longer by chance, so that what failed together does not come back together.
pub const RETRY_JITTER: u32 = 20;
/// The most of that which a policy may set.
pub const MAX_RETRY_JITTER: u32 = 50;
/// Reason codes that a policy may call final: more than half of those that an attempt can end with.
pub const MAX_FINAL_CODES: usize = 32;
/// Failed attempts of which a task's record tells, the newest: a person who looks at a dead letter reads no more.
pub const MAX_HISTORY: usize = 16;
/// The message of one of them; the rest is cut, and is in the audit log.
pub const MAX_HISTORY_TEXT_BYTES: usize = 512;
/// Dead letters that are kept for a redrive; the oldest are then failed tasks like any other. Their ids travel in one record of a checkpoint.
pub const MAX_DEAD_LETTERS: usize = 1_000;
/// Deliveries of messages that are kept likewise, in a record of their own: a flood of messages must not push out tasks.
pub const MAX_DEAD_MESSAGES: usize = 1_000;
/// The longest timeout of a task: as far ahead as one may sleep.
pub const MAX_TIMEOUT: Millis = MAX_SLEEP;
/// A waiting task counts as one level more urgent each time this is over.
pub const AGEING: Millis = Millis(30_000);
/// How often a checker may send a result back before the task fails.
pub const MAX_CHECK_ROUNDS: u32 = 3;
/// How long a lease lasts without renewal.
pub const LEASE: Millis = Millis(30_000);
/// An assigned attempt must have started by then, else the task goes back in the queue.
pub const ACK: Millis = Millis(5_000);

/// Attempts of one task that the host itself may fail before the task does.
pub const MAX_HOST_FAULTS: u32 = 3;
/// Encoded entries of one decision: they travel in one frame, which holds 768 KiB, with what follows from them.
pub const MAX_DECISION_BYTES: usize = 512 << 10;
/// What the record of a task takes beside its input and its description, about: for telling whether a decision has room for it.
pub const TASK_BYTES: usize = 256;
/// Records that one decision moves on its own account before it lets others have a turn; the next tick goes on at once.
pub const MAX_STRIDE: usize = 1_000;
/// Stopped crews that stay in memory; the oldest are read from their table.
pub const MAX_STOPPED_CREWS: usize = 100;

/// Crews of one host.
pub const MAX_CREWS: usize = 1_000;
/// Agents of one host: the pool and the mappings of one process end at about 10,600.
pub const MAX_AGENTS: usize = 10_000;
/// Members in one crew manifest.
pub const MAX_MEMBERS: usize = 100;
/// Replicas of one member.
pub const MAX_REPLICAS: u32 = 1_000;
/// Mounts of one crew.
pub const MAX_MOUNTS: usize = 16;
/// HTTP wants of one plugin: a list that a person reads before approving it.
pub const MAX_HTTP_WANTS: usize = 32;
/// The name of a host: what DNS takes.
pub const MAX_HOST_BYTES: usize = 253;
/// The path of an HTTP want: it stands on one line of a sheet.
pub const MAX_HTTP_PATH_BYTES: usize = 256;
/// Environment variables of one member.
pub const MAX_ENV: usize = 64;
/// Tasks that are not finished, over all crews: each holds some KiB.
pub const MAX_LIVE_TASKS: usize = 100_000;
/// Ended ephemeral tasks that can still be read: two seconds of them at the highest rate that a host was seen to reach.
pub const MAX_RECENT: usize = 50_000;
/// Bytes of such records: 50,000 small ones need a third of it.
pub const MAX_RECENT_BYTES: usize = 32 << 20;
/// Plugins installed on one host.
pub const MAX_PLUGINS: usize = 10_000;
/// Plugins whose newest number is remembered, those that were removed included: what stands against older ones never leaves memory.
pub const MAX_KNOWN_PLUGINS: usize = 20_000;
/// An idempotency key.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY: Millis = Millis(24 * 3_600_000);
/// Records in one page of any list.
pub const MAX_PAGE: usize = 100;

/// A key of the state: one index page of the store holds dozens.
pub const MAX_STATE_KEY_BYTES: usize = 256;
/// A value of the state: what a step can record inline without making frames slow.
pub const MAX_STATE_VALUE_BYTES: usize = 64 << 10;
/// Keys of one page of the state.
pub const MAX_STATE_PAGE: usize = 100;
/// Names of crews that have had state: what is known of each stays in memory.
pub const MAX_NAMESPACES: usize = 10_000;
/// How far back the revisions of a key stay readable, its newest one included.
pub const STATE_HISTORY: u64 = 64;
/// For how long those do that were replaced.
pub const STATE_HISTORY_AGE: Millis = Millis(24 * 3_600_000);
/// The most that a plugin may want of the state: it is on the disk, and in every backup.
pub const MAX_STATE_QUOTA: Size = Size(1 << 30);
/// The state that a publisher's plugins may want where its ceiling says nothing: positions, counters and findings, not a data set.
pub const CEILING_STATE: Size = Size(16 * MIB);
/// The children that they may want where it says nothing: what a person would call many.
pub const CEILING_CHILDREN: u32 = 100;
/// Children that one step awaits: as many as a tree has.
pub const MAX_AWAITED: usize = MAX_PLAN_NODES;
/// Inline outputs that one await hands over: they are copied under the shard's lock, and a thousand children could have 256 MiB.
pub const MAX_ENDS_BYTES: usize = 4 << 20;
/// The longest that children are awaited.
pub const MAX_AWAIT: Millis = Millis(30 * 86_400_000);
/// How far ahead a task may sleep.
pub const MAX_SLEEP: Millis = Millis(366 * 86_400_000);
/// Steps of one run: beyond that a re-run takes seconds, and `tasks.continue` begins an empty record.
pub const MAX_STEPS: u64 = 1_000_000;
/// Bytes of steps of one run.
pub const MAX_RECORD_BYTES: u64 = 256 * MIB;
/// Bytes of steps of one task that memory keeps before they go to their table: what most tasks never reach.
pub const RECORD_TAIL_BYTES: usize = 32 << 10;
/// Outputs of children after which no further step is handed to a runner in the same piece; the steps themselves are those of one row.
pub const RECORD_PAGE_BYTES: usize = 256 << 10;
/// Reads of the clock after which it moves on: a guest that polls it must see time pass.
pub const CLOCK_READS: u32 = 256;
/// Bytes of artifacts that an exported record carries: what its run has read, as far as a file can be sent around.
pub const MAX_EXPORTED_ARTIFACTS: u64 = 64 * MIB;
/// One piece of an exported record: the largest is the component.
pub const MAX_EXPORT_PIECE_BYTES: usize = 17 << 20;
/// How long an attempt that waits keeps its instance, in the hope that the wait is short.
pub const PARK: Millis = Millis(2_000);
/// Of the runner's slots, one in so many may hold an instance that waits: they are the first to go.
pub const PARKED_SHARE: u32 = 4;

/// A subject of a message or a topic: it stands on one line of a sheet.
pub const MAX_SUBJECT_BYTES: usize = 256;
/// Names of a subject: what is compared with each topic of a crew when a message is sent.
pub const MAX_SUBJECT_NAMES: usize = 16;
/// Topics that one agent may send on, and as many that it may hear: a list that a person reads before approving it.
pub const MAX_TOPICS: usize = 64;
/// A partition key, an idempotency key or a correlation of a message: what names a thing, and no more.
pub const MAX_KEY_BYTES: usize = 128;
/// The longest that a message may be delivered: for so long it is kept, and idempotency keys are remembered.
pub const MAX_MESSAGE_TTL: Millis = IDEMPOTENCY;
/// How long a question or a late answer may be delivered unless its sender says otherwise: whoever asked waits.
pub const QUERY_TTL: Millis = Millis(5_000);
/// Deliveries of one message: one decision makes them, and their records travel in one frame.
pub const MAX_RECEIVERS: usize = 1_000;
/// Deliveries to one agent that have not ended; what would be one more is refused to its sender.
pub const MAX_MAILBOX: usize = 1_000;
/// The answer to a request: what a step can record inline without making frames slow.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Schedules of one host: each keeps its template in memory.
pub const MAX_SCHEDULES: usize = 1_000;
/// The task that a schedule submits, encoded: a thousand of them take 64 MiB, and several firings fit in one decision.
pub const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// A cron pattern; one that lists every minute has 170 bytes.
pub const MAX_CRON_BYTES: usize = 256;
/// The shortest interval of a schedule: what cron patterns can say at most.
pub const MIN_INTERVAL: Millis = Millis(1_000);
/// How far ahead a due time may lie: ten years, so that 29 February comes also across 2100.
pub const MAX_SCHEDULE_AHEAD: Millis = Millis(3_660 * 86_400_000);
/// How late a due time may be looked at without counting as missed: what is promised of timers.
pub const ON_TIME: Millis = Millis(1_000);
/// Missed due times that one schedule makes up for at once: as many tasks as a person may submit in one request.
pub const MAX_CATCH_UP: usize = MAX_SUBMISSION;
/// Questions of agents that people have not answered, over all crews: each may hold 64 KiB in memory, and nobody reads more.
pub const MAX_OPEN_APPROVALS: usize = 1_000;
/// Items of one approval: a list that a person reads before deciding it.
pub const MAX_APPROVAL_ITEMS: usize = 32;
/// Names and arguments of one approval, together: what a person is shown.
pub const MAX_APPROVAL_BYTES: usize = 64 << 10;
/// The name of an action or of an item: a word or two on one line.
pub const MAX_ACTION_BYTES: usize = 128;
/// How long a person has unless it is said otherwise.
pub const APPROVAL_LIFE: Millis = Millis(24 * 3_600_000);
/// The shortest that a person may be given: below it, nobody could have answered.
pub const MIN_APPROVAL_LIFE: Millis = Millis(1_000);
/// The longest that a person may be given: as long as children are awaited.
pub const MAX_APPROVAL_LIFE: Millis = MAX_AWAIT;
/// How often an approval is put to people once more: whom twice did not reach, a third time does not.
pub const MAX_ESCALATIONS: u32 = 1;
/// Actions that one run is always allowed: they travel in the record of the task.
pub const MAX_ALWAYS: usize = 16;

/// Denials recorded one by one per attempt; equal ones are counted.
pub const MAX_DENIALS: usize = 64;
/// Log lines and captured output kept per attempt; the oldest go first.
pub const MAX_LOG_BYTES: usize = 1 << 20;
/// Log bytes kept on disk per attempt.
pub const MAX_STORED_LOG_BYTES: usize = 64 << 10;
/// Fields of one log line.
pub const MAX_LOG_FIELDS: usize = 16;
/// Lines of one attempt that are told at a time while it runs, four times a second: more than people read, and a flood of short ones costs no more.
pub const LIVE_LOG_LINES: usize = 250;
/// Bytes of such lines: what may come in at once.
pub const LIVE_LOG_BYTES: usize = 64 << 10;
/// Bytes of such lines of all attempts together: what a host writes to its log without feeling it.
pub const LIVE_LOG_FRAME_BYTES: usize = 1 << 20;
/// What the host says of its own decisions, in lines per second; the audit log has the rest.
pub const HOST_LINES_PER_SECOND: u32 = 1_000;
/// A piece of the log, as it is written and read.
pub const LOG_PIECE_BYTES: usize = 64 << 10;
/// Pieces of the log that are kept: 256 MiB, which is days of a usual host and half an hour of the worst flood that ten agents can make.
pub const MAX_LOG_PIECES: u64 = 4_096;
/// The newest of them, which streams read from memory: 8 MiB.
pub const LOG_MEMORY_PIECES: usize = 128;
/// Pieces that one request looks through: a filter that nothing fits must not read everything at once.
pub const LOG_SCAN_PIECES: usize = 256;
/// How long an approval that is over can be read; what was decided stays in the audit log.
pub const APPROVAL_AGE: Millis = Millis(30 * 86_400_000);
/// How long the log of an attempt is kept for itself.
pub const LOG_AGE: Millis = Millis(30 * 86_400_000);
/// Captured standard output and error per second.
pub const OUTPUT_BYTES_PER_SECOND: u32 = 64 << 10;
/// Fuel between two yields: 60 to 100 µs of computing, so that cancel, deadline and fairness act well within a millisecond, and the switch
/// that each yield costs stays near one part in a hundred.
pub const YIELD_FUEL: u64 = 1_000_000;
/// A guest that has not yielded for so long is a fuel bug: the process ends.
pub const WATCHDOG: Millis = Millis(1_000);
/// Open descriptors of one attempt.
pub const MAX_DESCRIPTORS: u32 = 64;
/// Directory listings that one attempt may hold: each keeps the names of its directory in the host's memory. A walk that goes ten deep needs ten.
pub const MAX_LISTINGS: u32 = 16;
/// Attempts of the tier `large` at a time: each may hold 512 MiB and sixteen memories.
pub const MAX_LARGE_ATTEMPTS: u32 = 500;
/// Slots beyond those for attempts: instances that are made once while an agent is warmed.
pub const MAX_WARMING: u32 = 16;
/// Components compiled at a time; each takes one core and up to hundreds of MiB.
pub const MAX_COMPILATIONS: usize = 2;
/// Processor time of one compilation: an honest plugin of 2 MB takes three seconds.
pub const COMPILE_CPU: Millis = Millis(20_000);
/// The longest that a compilation takes, on a machine that has other things to do.
pub const COMPILE_WALL: Millis = Millis(60_000);
/// Address space of one compilation: a 1.4 MB plugin takes some 50 MiB, the worst shapes hundreds.
pub const MAX_COMPILE_MEMORY: u64 = 1536 * MIB;
/// Compiled code: some four times its component.
pub const MAX_CODE_BYTES: u64 = 256 * MIB;
/// Open files of a compiler: it needs its input, its output and its report.
pub const MAX_COMPILE_FILES: u64 = 32;
/// What a compiler may report: one line, or the text of its failure.
pub const MAX_COMPILE_REPORT_BYTES: u64 = 16 * KIB;
/// Threads for what may block: reading, compiling, removing workspaces.
pub const MAX_BLOCKING_THREADS: usize = 16;
/// The longest that an agent may take to be instantiated while it is warmed.
pub const WARM_UP: Millis = Millis(10_000);
/// A path that a guest names: what operating systems take.
pub const MAX_PATH_BYTES: usize = 4 << 10;
/// Random bytes that one call hands out: they are made while the guest's thread waits.
pub const MAX_RANDOM_BYTES: usize = 1 << 20;
/// The text of one denial; the rest is cut.
pub const MAX_DENIAL_BYTES: usize = 256;
/// One line of a log; a longer line of output becomes several.
pub const MAX_LOG_LINE_BYTES: usize = 4 << 10;

/// Body of a request other than an upload.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// An upload.
pub const MAX_UPLOAD_BYTES: usize = 20 << 20;
/// Tasks in one submission.
pub const MAX_SUBMISSION: usize = 100;
/// The longest `wait` of a request.
pub const MAX_WAIT: Millis = Millis(600_000);
/// Events kept in memory for streams.
pub const MAX_EVENTS: usize = 100_000;
/// How long a task waits for an agent before that is told.
pub const WAIT_ALERT: Millis = Millis(30_000);
/// How often at most it is looked for such tasks: one look passes over the oldest task of every kind of work, of which there may be as many as tasks.
pub const ALERT_PAUSE: Millis = Millis(1_000);
/// Tasks of which that is told in one go: one per kind of work is enough to see what is missing.
pub const MAX_ALERTS: usize = 100;
/// Compressed messages that are expanded at a time: each takes ten MiB, and a window of up to a hundred.
pub const MAX_EXPANSIONS: usize = 4;
/// Webhooks of a host: each reads the audit log by itself.
pub const MAX_WEBHOOKS: usize = 16;
/// How long a webhook has to answer one call, connection included; its body is not read.
pub const WEBHOOK_PATIENCE: Millis = Millis(10_000);
/// The longest delay before a call is tried again.
pub const WEBHOOK_DELAY: Millis = Millis(15 * 60_000);
/// For how long an event is tried, from when it happened. Events stay in order, so those behind one that fails wait as long.
pub const WEBHOOK_AGE: Millis = Millis(24 * 3_600_000);
/// How often an event is tried that is refused (4xx): such an answer is about the call, not about the moment.
pub const WEBHOOK_REFUSALS: u32 = 5;
/// How long a webhook that was told everything looks for nothing new: a busy host writes thousands of entries a second.
pub const WEBHOOK_PAUSE: Millis = Millis(100);
/// Rows of the audit log that a webhook looks at in one go.
pub const WEBHOOK_PAGE: usize = 200;
/// Text of a call that agents have written; the rest is cut. Slack takes up to 4,000 characters, and a quoted one may become five.
pub const WEBHOOK_TEXT_BYTES: usize = 1 << 10;
/// Watchers of event streams at a time.
pub const MAX_WATCHERS: usize = 1_000;
/// Crews that the figures of the host name: each is a series that whoever gathers them keeps.
pub const MAX_METERED_CREWS: usize = 100;

/// Records that are exported at a time: each holds a thread while its client reads.
pub const MAX_EXPORTS: usize = 8;

/// Connections of clients at a time: each holds a buffer and at most one request.
pub const MAX_CONNECTIONS: usize = 2_048;
/// Plugins being uploaded at a time: each is held in memory, twice while it is compiled, until it is installed or refused.
pub const MAX_UPLOADS: usize = 8;
/// Uploads of one publisher that are compiled or wait for it; more are refused. They wait for each other and hold places of [`MAX_UPLOADS`]
/// meanwhile, of which two publishers together must not have all.
pub const MAX_PUBLISHER_UPLOADS: usize = 3;
/// A request must have its headers by then, and all of its body in the same time again.
pub const REQUEST_HEAD: Millis = Millis(10_000);
/// A request that does not ask to wait is answered by then.
pub const REQUEST: Millis = Millis(30_000);
/// How long a stopping host waits for requests that it has begun to answer.
pub const GRACE: Millis = Millis(5_000);
/// Logs of attempts in one page: together less than 1 MiB.
pub const MAX_LOG_PAGE: usize = 10;
/// Bytes of the database that a host keeps in memory. It appends, and what is read again was written lately; the rest the system's own cache holds.
pub const STORE_CACHE_BYTES: usize = 16 << 20;
/// Entries after which the records are written as a checkpoint: what a start replays in a fraction of a second.
pub const CHECKPOINT_ENTRIES: usize = 20_000;
/// Changed records after which they are written as a checkpoint, which is one transaction: whoever waits for the disk waits for all of it.
pub const CHECKPOINT_RECORDS: usize = 2_000;
/// Bytes of entries after which the records are written as a checkpoint.
pub const CHECKPOINT_BYTES: usize = 32 << 20;
/// Rows of artifacts that wait for an entry to travel with. Each was a synced write of a guest, so they gather slowly.
pub const MAX_RIDERS: usize = 10_000;
/// Free bytes of the data directory's disk below which nothing new is accepted: what runs must still be able to end.
pub const LOW_SPACE: u64 = 256 * MIB;
/// Bytes that wait for the disk before whoever appends is made to wait: half a second of a slow disk.
pub const MAX_PENDING_BYTES: usize = 64 << 20;
/// Bytes that wait for the disk beyond which nothing new is accepted. The other half of [`MAX_PENDING_BYTES`] is for what was accepted before.
pub const MAX_BACKLOG_BYTES: usize = MAX_PENDING_BYTES / 2;
/// How often the free space is looked at.
pub const SPACE_CHECK: Millis = Millis(5_000);

/// An envelope: a statement and its signatures.
pub const MAX_ENVELOPE_BYTES: usize = 64 << 10;
/// The envelope of a document of trust: its base64 and its signatures.
pub const MAX_METADATA_ENVELOPE_BYTES: usize = 400 << 10;
/// A signed document: what one entry of the journal can carry.
pub const MAX_METADATA_BYTES: usize = 256 << 10;
/// A key file: one key in PEM is 120 bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 16 * KIB;
/// A publisher's ledger: some 150 bytes for each of as many plugins as a host holds.
pub const MAX_LEDGER_BYTES: u64 = 2 * MIB;
/// Signatures in one envelope; each costs a verification.
pub const MAX_SIGNATURES: usize = 16;
/// Keys of one role.
pub const MAX_KEYS: usize = 16;
/// Publishers that a host trusts, and names that one of them may sign.
pub const MAX_PUBLISHERS: usize = 500;
/// Revoked keys, files and minimum releases, together: they travel in one record.
pub const MAX_REVOCATIONS: usize = 3_000;
/// Revocations beyond those that only a person's command may add: an index must not use them up.
pub const MAX_REVOCATIONS_BY_HAND: usize = 500;
/// The longest life of a release and of a publisher's keys: 400 days.
pub const MAX_RELEASE_LIFE: Millis = Millis(400 * 86_400_000);
/// The longest life of a root: a year.
pub const MAX_ROOT_LIFE: Millis = Millis(366 * 86_400_000);
/// The longest life of an index.
pub const MAX_INDEX_LIFE: Millis = Millis(7 * 86_400_000);
/// The longest life of a clock: that of a host without a network.
pub const MAX_CLOCK_LIFE: Millis = Millis(90 * 86_400_000);
/// How far ahead of this host's clock a publisher's may be.
pub const CLOCK_SKEW: Millis = Millis(300_000);
/// How often running agents are compared with what is revoked.
pub const REVOCATION_SWEEP: Millis = Millis(60_000);
/// How long the sweep lets the attempts of a revoked plugin finish.
pub const REVOCATION_DRAIN: Millis = Millis(10_000);
/// A time is put on record this long after the last at the latest, so that a clock that is set back wins at most so much.
pub const TIME_SEEN: Millis = Millis(3_600_000);
/// A reason that a person gives for an act.
pub const MAX_REASON_BYTES: usize = 256;
/// How old a build may be before the host warns of itself: the engine has had fixes that matter more often than every ninety days.
pub const BUILD_LIFE: Millis = Millis(90 * 86_400_000);

/// How much of everything an agent of a size may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Tier {
    /// 16 MiB, 50 G of fuel, 60 s.
    #[n(0)]
    Small,
    /// 64 MiB, 1 T of fuel, 5 min. The default.
    #[default]
    #[n(1)]
    Medium,
    /// 512 MiB, 20 T of fuel, 60 min. Only where the host's ceiling allows it.
    #[n(2)]
    Large,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Small => "small",
            Tier::Medium => "medium",
            Tier::Large => "large",
        })
    }
}

/// The text names no tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a tier (small, medium or large)")]
pub struct UnknownTier(String);

impl FromStr for Tier {
    type Err = UnknownTier;
    fn from_str(text: &str) -> Result<Self, UnknownTier> {
        let found = [Tier::Small, Tier::Medium, Tier::Large]
            .into_iter()
            .find(|tier| tier.to_string() == text);
        found.ok_or_else(|| UnknownTier(text.chars().take(80).collect()))
    }
}

text_serde!(Tier);

/// The limits of one attempt, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Limits {
    /// The tier they come from.
    #[n(0)]
    pub tier: Tier,
    /// Linear memory, all memories together.
    #[n(1)]
    pub memory: Size,
    /// Fuel of one attempt.
    #[n(2)]
    pub fuel: Fuel,
    /// Wall deadline around instantiate and call.
    #[n(3)]
    pub deadline: Millis,
    /// Table elements, all tables together.
    #[n(4)]
    pub table_elements: u64,
    /// Core instances.
    #[n(5)]
    pub instances: u32,
    /// Memories.
    #[n(6)]
    pub memories: u32,
    /// Tables.
    #[n(7)]
    pub tables: u32,
    /// Bytes that one host call may hand over.
    #[n(8)]
    pub hostcall_bytes: Size,
    /// Handles held at a time.
    #[n(9)]
    pub handles: u32,
    /// Host calls per second; twice as many in a burst.
    #[n(10)]
    pub hostcalls_per_second: u32,
    /// The most that `/workspace` may be granted.
    #[n(11)]
    pub workspace: Size,
    /// Files and directories in `/workspace`.
    #[n(12)]
    pub workspace_files: u32,
}

impl Tier {
    /// What the tier allows. Sources of the numbers: measurements of hostile guests, see `host/README.md`.
    #[must_use]
    pub fn limits(self) -> Limits {
        let (memory, fuel, deadline, workspace, workspace_files) = match self {
            Tier::Small => (16 * MIB, 50_000_000_000, 60_000, 16 * MIB, 1_000),
            Tier::Medium => (64 * MIB, 1_000_000_000_000, 300_000, 256 * MIB, 10_000),
            Tier::Large => (512 * MIB, 20_000_000_000_000, 3_600_000, 4096 * MIB, 100_000),
        };
        let large = self == Tier::Large;
        let times = |factor: u32| if large { factor } else { 1 };
        Limits {
            tier: self,
            memory: Size(memory),
            fuel: Fuel(fuel),
            deadline: Millis(deadline),
            table_elements: 20_000 * u64::from(times(4)),
            instances: 32 * times(4),
            memories: 4 * times(4),
            tables: 8 * times(4),
            hostcall_bytes: Size(if large { 8 * MIB } else { 1024 * KIB }),
            handles: 1_024 * times(8),
            hostcalls_per_second: 200_000 * times(2),
            workspace: Size(workspace),
            workspace_files,
        }
    }
}

/// What a manifest or a crew says of limits: a tier, or single values below it. What is absent is the tier's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The tier; `medium` where neither the plugin nor the crew names one.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Linear memory.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Fuel per attempt.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<Fuel>,
    /// Wall deadline of an attempt.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
}

impl Wish {
    /// The limits that are left when this wish meets others: each value the smallest that any of them names.
    #[must_use]
    pub fn narrow(&self, limits: Limits) -> Limits {
        let base = match self.tier {
            Some(tier) if tier < limits.tier => tier.limits(),
            _ => limits.clone(),
        };
        Limits {
            memory: base.memory.min(limits.memory).min(self.memory.unwrap_or(base.memory)),
            fuel: base.fuel.min(limits.fuel).min(self.fuel.unwrap_or(base.fuel)),
            deadline: base
                .deadline
                .min(limits.deadline)
                .min(self.deadline.unwrap_or(base.deadline)),
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_only_narrows() {
        let wish = Wish {
            tier: Some(Tier::Large),
            memory: Some(Size(1 << 40)),
            fuel: Some(Fuel(5)),
            deadline: None,
        };
        let limits = wish.narrow(Tier::Small.limits());
        assert_eq!(
            (limits.tier, limits.memory, limits.fuel),
            (Tier::Small, Size(16 * MIB), Fuel(5))
        );

        let wish = Wish {
            tier: Some(Tier::Small),
            ..Wish::default()
        };
        assert_eq!(wish.narrow(Tier::Large.limits()), Tier::Small.limits());
    }
}
