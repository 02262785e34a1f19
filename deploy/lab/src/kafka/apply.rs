//! A cluster made as it is declared, and held against the declaration.
//!
//! Input: a way to the cluster as an administrator, and a [`Declaration`]. Output: a line for each thing: what was done, or what
//! differs. Limits: what is not declared is taken away only where it was asked for, and only from declared principals.

use std::fmt;

use super::access::Access;
use super::acl::{Acl, Differences};
use super::declaration::Declaration;
use super::topics::{Admin, Outcome};
use super::{AclError, KafkaError};

/// What to do with grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grants {
    /// Nothing: a cluster where everybody may do everything.
    Leave,
    /// Give what is missing, and name what is too wide.
    Give,
    /// Give what is missing, and take back what declared principals have beyond it.
    GiveAndTake,
}

/// One thing and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The thing.
    pub item: String,
    /// What was done, or what differs.
    pub what: String,
    /// Whether it is now as declared.
    pub good: bool,
}

impl Line {
    fn new(item: impl fmt::Display, what: impl fmt::Display, good: bool) -> Self {
        let (item, what) = (item.to_string(), what.to_string());
        Self { item, what, good }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.what)
    }
}

/// Makes it so.
///
/// # Errors
/// When the cluster cannot be reached or has no authorizer though grants are wanted. What it refuses is a line.
pub fn apply(
    access: &Access,
    declaration: &Declaration,
    grants: Grants,
) -> Result<Vec<Line>, KafkaError> {
    let admin = Admin::connect(access)?;
    let mut lines = Vec::new();
    for topic in &declaration.topics {
        let item = format!("topic {}", topic.name);
        lines.push(match admin.apply(topic) {
            Ok(outcome) => Line::new(item, outcome, true),
            Err(KafkaError::Topic { reason, .. }) => Line::new(item, reason, false),
            Err(error) => return Err(error),
        });
    }
    admin.settle(&declaration.topics);
    if grants == Grants::Leave {
        return Ok(lines);
    }
    let found = differences(&admin, declaration)?;
    let acls = admin.acls();
    if !found.missing.is_empty() {
        acls.create(&found.missing)?;
    }
    let is_new = |acl: &Acl| found.missing.contains(acl);
    for acl in declaration.acls() {
        let what = match is_new(&acl) {
            true => Outcome::Created,
            false => Outcome::Unchanged,
        };
        lines.push(Line::new(&acl, what, true));
    }
    if grants == Grants::GiveAndTake && !found.too_wide.is_empty() {
        acls.delete(&found.too_wide)?;
    }
    let taken = grants == Grants::GiveAndTake;
    for acl in &found.too_wide {
        let what = match taken {
            true => "not declared, taken back",
            false => "not declared, left as it is (--revoke takes it back)",
        };
        lines.push(Line::new(acl, what, taken));
    }
    let of_others = found.of_others.iter();
    lines.extend(of_others.map(|acl| Line::new(acl, OF_OTHERS, false)));
    Ok(lines)
}

/// What is said of a grant that is nobody's whom we know.
const OF_OTHERS: &str = "not declared, and nor is who has it: left as it is";

/// Everything that differs; changes nothing.
///
/// # Errors
/// When the cluster cannot be reached.
pub fn check(
    access: &Access,
    declaration: &Declaration,
    grants: Grants,
) -> Result<Vec<Line>, KafkaError> {
    let admin = Admin::connect(access)?;
    let mut lines = Vec::new();
    for topic in &declaration.topics {
        let differences = admin.differences(topic)?;
        let item = format!("topic {}", topic.name);
        lines.extend(differences.iter().map(|what| Line::new(&item, what, false)));
    }
    if grants == Grants::Leave {
        return Ok(lines);
    }
    match differences(&admin, declaration) {
        Ok(found) => {
            let missing = found.missing.iter();
            lines.extend(missing.map(|acl| Line::new(acl, "is missing", false)));
            let wide = found.too_wide.iter();
            lines.extend(wide.map(|acl| Line::new(acl, "is not declared: too wide", false)));
            let others = found.of_others.iter();
            let what = "is not declared, and nor is who has it";
            lines.extend(others.map(|acl| Line::new(acl, what, false)));
        }
        Err(KafkaError::Acl(error @ AclError::NoAuthorizer)) => {
            lines.push(Line::new("grants", error, false));
        }
        Err(error) => return Err(error),
    }
    Ok(lines)
}

/// How many brokers the cluster has, and what copies that makes, in words.
///
/// # Errors
/// When the cluster cannot be reached.
pub fn size_in_words(access: &Access) -> Result<String, KafkaError> {
    let (brokers, copies) = Admin::connect(access)?.size();
    let (all, in_sync) = (copies.all, copies.in_sync);
    Ok(format!(
        "{brokers} broker(s): {all} copies, {in_sync} of which must have a write"
    ))
}

fn differences(admin: &Admin, declaration: &Declaration) -> Result<Differences, KafkaError> {
    let there = admin.acls().list()?;
    let topics: Vec<_> = declaration.topics.iter().map(|t| t.name.as_str()).collect();
    Ok(Differences::between(&declaration.acls(), &topics, &there))
}

/// Takes away or gives single grants, for tests of what a check finds.
///
/// # Errors
/// When the cluster refuses.
pub fn change_acls(access: &Access, give: &[Acl], take: &[Acl]) -> Result<(), KafkaError> {
    let admin = Admin::connect(access)?;
    let acls = admin.acls();
    if !give.is_empty() {
        acls.create(give)?;
    }
    if !take.is_empty() {
        acls.delete(take)?;
    }
    Ok(())
}
