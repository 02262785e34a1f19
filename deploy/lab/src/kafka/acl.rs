//! Grants: what a cluster has, held against what is declared. Pure.
//!
//! Input: two lists of [`Acl`]s. Output: what is missing, what is too wide, and what others have on our topics.
//! Limits: hosts are not declared; a grant for one host alone is taken for another one.

use std::fmt;

/// What a grant is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// The cluster itself.
    Cluster,
    /// A producer's transactions.
    Transaction,
    /// Something that the client library has no word for.
    Other,
}

/// How its name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// As it is; `*` alone stands for all.
    Literal,
    /// As the beginning of names.
    Prefixed,
    /// In a way that the client library has no word for.
    Other,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Read, and describe.
    Read,
    /// Write, describe, and be an idempotent producer.
    Write,
    /// Everything.
    All,
    /// Something else, by Kafka's number.
    Other(u32),
}

/// One grant or refusal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// Who.
    pub principal: String,
    /// What about.
    pub resource: Resource,
    /// How the name is meant.
    pub pattern: Pattern,
    /// Name of the resource.
    pub name: String,
    /// What.
    pub operation: Operation,
    /// From where; `*` is anywhere.
    pub host: String,
    /// Granted; or else refused.
    pub allow: bool,
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "may" } else { "may not" };
        let operation = match self.operation {
            Operation::Read => "read".to_owned(),
            Operation::Write => "write".to_owned(),
            Operation::All => "do everything with".to_owned(),
            Operation::Other(number) => format!("do operation {number} on"),
        };
        let resource = match self.resource {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::Cluster => "cluster",
            Resource::Transaction => "transaction",
            Resource::Other => "other resource",
        };
        let star = if self.pattern == Pattern::Prefixed {
            "*"
        } else {
            ""
        };
        let principal = &self.principal;
        write!(
            f,
            "{principal} {verb} {operation} {resource} {}{star}",
            self.name
        )?;
        match self.host.as_str() {
            "*" => Ok(()),
            host => write!(f, " from {host}"),
        }
    }
}

impl Acl {
    /// Whether it is about this topic.
    fn covers_topic(&self, topic: &str) -> bool {
        self.resource == Resource::Topic
            && match self.pattern {
                Pattern::Prefixed => topic.starts_with(&self.name),
                Pattern::Literal | Pattern::Other => self.name == "*" || self.name == topic,
            }
    }
}

/// How what a cluster has differs from what is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Declared, and not there.
    pub missing: Vec<Acl>,
    /// There, of a declared principal, and not declared.
    pub too_wide: Vec<Acl>,
    /// There, of somebody who is not declared, on a declared topic.
    pub of_others: Vec<Acl>,
}

impl Differences {
    /// Holds one against the other.
    #[must_use]
    pub fn between(declared: &[Acl], topics: &[&str], there: &[Acl]) -> Self {
        let is_declared = |acl: &Acl| declared.contains(acl);
        let knows = |name: &str| declared.iter().any(|acl| acl.principal == name);
        let ours = |acl: &Acl| topics.iter().any(|topic| acl.covers_topic(topic));
        let chosen = |wanted: &dyn Fn(&Acl) -> bool, from: &[Acl]| -> Vec<Acl> {
            from.iter().filter(|acl| wanted(acl)).cloned().collect()
        };
        Self {
            missing: chosen(&|acl| !there.contains(acl), declared),
            too_wide: chosen(&|acl| knows(&acl.principal) && !is_declared(acl), there),
            of_others: chosen(&|acl| !knows(&acl.principal) && ours(acl), there),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(principal: &str, pattern: Pattern, name: &str, operation: Operation) -> Acl {
        Acl {
            principal: format!("User:{principal}"),
            resource: Resource::Topic,
            pattern,
            name: name.to_owned(),
            operation,
            host: "*".to_owned(),
            allow: true,
        }
    }

    #[test]
    fn each_difference_has_its_place() {
        let literal =
            |principal, name, operation| acl(principal, Pattern::Literal, name, operation);
        let declared = [
            literal("sampler", "window", Operation::Write),
            literal("sampler", "pulse", Operation::Write),
        ];
        let there = [
            literal("sampler", "window", Operation::Write),
            literal("sampler", "window", Operation::Read),
            literal("*", "*", Operation::Read),
            acl("else", Pattern::Prefixed, "win", Operation::All),
            literal("else", "another", Operation::All),
        ];
        let found = Differences::between(&declared, &["window", "pulse"], &there);
        assert_eq!(found.missing, [declared[1].clone()]);
        assert_eq!(found.too_wide, [there[1].clone()]);
        assert_eq!(found.of_others, there[2..4]);
    }

    #[test]
    fn a_grant_reads_as_a_sentence() {
        let mut one = acl("else", Pattern::Prefixed, "win", Operation::All);
        assert_eq!(
            one.to_string(),
            "User:else may do everything with topic win*"
        );
        one.allow = false;
        one.host = "10.0.0.1".to_owned();
        assert_eq!(
            one.to_string(),
            "User:else may not do everything with topic win* from 10.0.0.1"
        );
    }
}
