//! Schedules: tasks that are submitted again and again.

use serde::{Deserialize, Serialize};
use skep_rules::{
    id::{Name, TaskId},
    quantity::{Millis, Time},
    schedule::Missed,
};
use utoipa::ToSchema;

use super::task::{Failure, NewTask};

/// A schedule to be. It says when by one of `cron`, `every` and `at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSchedule {
    /// Its name, the only one of its crew.
    #[schema(value_type = String)]
    pub name: Name,
    /// The crew's id, a unique prefix of it, or its name. May be left out where there is only one. The schedule stays with the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crew: Option<String>,
    /// A cron pattern: minute, hour, day of the month, month, day of the week; seconds may stand in front, and then years behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// With `cron`, the time zone of the IANA database whose clock it goes by; `UTC` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// So often, for instance `15min`; at least `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub every: Option<Millis>,
    /// With `every`, the first time; one interval from now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub first: Option<Time>,
    /// Once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub at: Option<Time>,
    /// What becomes of due times that passed while the host was down or the crew drained: `skip` drops them, `one` makes up for the last of them,
    /// `all` for each, the newest hundred of them.
    #[serde(default)]
    #[schema(value_type = String)]
    pub missed: Missed,
    /// What is submitted. It waits for nothing, is durable, and has its input inline; its crew is the schedule's.
    pub task: NewTask,
}

/// When a schedule is due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct When {
    /// A cron pattern: minute, hour, day of the month, month, day of the week; seconds may stand in front, and then years behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// With `cron`, the time zone of the IANA database whose clock it goes by; `UTC` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// So often, for instance `15min`; at least `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub every: Option<Millis>,
    /// With `every`, the first time; one interval from now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub first: Option<Time>,
    /// Once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub at: Option<Time>,
}

/// A schedule as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// The name of its crew.
    #[schema(value_type = String)]
    pub crew: Name,
    /// When.
    #[serde(flatten)]
    pub when: When,
    /// What becomes of due times that were missed.
    #[schema(value_type = String)]
    pub missed: Missed,
    /// What it is for: the description of its tasks.
    pub description: String,
    /// The next due time. A schedule that has none is gone.
    #[schema(value_type = u64)]
    pub next: Time,
    /// It waits for a crew of its name.
    pub resting: bool,
    /// Due times that became tasks. Those have the labels `schedule` and `due`.
    pub fired: u64,
    /// The last due time that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The due times that were passed over last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Passed>,
    /// Who made it.
    pub by: String,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    #[schema(value_type = u64)]
    pub created_at: Time,
}

/// What became of a due time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Last {
    /// It.
    #[schema(value_type = u64)]
    pub due: Time,
    /// When it was looked at.
    #[schema(value_type = u64)]
    pub at: Time,
    /// The task that it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// Why it became none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Due times that were passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Passed {
    /// The first of them.
    #[schema(value_type = u64)]
    pub first: Time,
    /// The first that was not.
    #[schema(value_type = u64)]
    pub before: Time,
}
