//! Grants in a cluster: listed, given, taken back. The client library has this in C only.
//!
//! Input: a client, ACLs. Output: ACLs, or why not. Limits: one request at a time, [`TIMEOUT`] each; a cluster without an
//! authorizer is told apart.

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode;

use c::rd_kafka_AclOperation_t as COperation;
use c::rd_kafka_AclPermissionType_t as CPermission;
use c::rd_kafka_ResourcePatternType_t as CPattern;
use c::rd_kafka_ResourceType_t as CResource;
use c::rd_kafka_admin_op_t as Request;

use super::acl::{Acl, Operation, Pattern, Resource};

/// How long the brokers may take for one answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// Room for librdkafka's own words about a wrong argument.
const WORDS: usize = 512;

/// Why a request about ACLs came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AclError {
    /// Nobody decides on rights in this cluster: everybody may do everything.
    #[error("the cluster has no authorizer: everybody may do everything")]
    NoAuthorizer,
    /// A text cannot be handed to librdkafka.
    #[error("{0:?} is no name")]
    Name(String),
    /// The brokers, or librdkafka, said no.
    #[error("{0}")]
    Refused(String),
}

/// A pointer of librdkafka's that is destroyed with it.
struct Owned<T> {
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, AclError> {
        match pointer.is_null() {
            true => Err(AclError::Refused("librdkafka has no room".to_owned())),
            false => Ok(Self { pointer, destroy }),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` was given the pointer together with the function that ends it, and nobody else ends it.
        unsafe { (self.destroy)(self.pointer) }
    }
}

type Binding = Owned<c::rd_kafka_AclBinding_t>;
type Event = Owned<c::rd_kafka_event_t>;

/// Speaks with a cluster about ACLs.
pub(super) struct AclClient<'a, C: ClientContext> {
    client: &'a Client<C>,
}

impl<'a, C: ClientContext> AclClient<'a, C> {
    pub(super) fn new(client: &'a Client<C>) -> Self {
        Self { client }
    }

    /// All that there are.
    pub(super) fn list(&self) -> Result<Vec<Acl>, AclError> {
        let all = self.described()?;
        if all.is_empty() {
            // librdkafka 2.12 passes over the error in an answer to DescribeAcls: without an authorizer, or without the right to
            // ask, there seem to be no grants. It does tell of an error in an answer to DeleteAcls; this one deletes nothing,
            // since no topic can have such a name.
            self.delete(&[Acl {
                principal: "User:nobody".to_owned(),
                resource: Resource::Topic,
                pattern: Pattern::Literal,
                name: "no topic/of anybody".to_owned(),
                operation: Operation::Read,
                host: "*".to_owned(),
                allow: true,
            }])?;
        }
        Ok(all)
    }

    fn described(&self) -> Result<Vec<Acl>, AclError> {
        let any = any()?;
        let event = self.ask(
            Request::RD_KAFKA_ADMIN_OP_DESCRIBEACLS,
            |client, options, queue| {
                // SAFETY: client, filter, options and queue live until `ask` has the answer.
                unsafe { c::rd_kafka_DescribeAcls(client, any.pointer, options, queue) }
            },
        )?;
        let mut count = 0;
        // SAFETY: the event is the answer to DescribeAcls (checked by the null that it would be otherwise); the array and what
        // it points to belong to the event, which outlives the reading.
        unsafe {
            let result = c::rd_kafka_event_DescribeAcls_result(event.pointer);
            if result.is_null() {
                return Err(AclError::Refused("another answer came".to_owned()));
            }
            let all = c::rd_kafka_DescribeAcls_result_acls(result, &raw mut count);
            let all = slice(all, count);
            Ok(all.iter().map(|acl| read(*acl)).collect())
        }
    }

    /// Grants.
    pub(super) fn create(&self, acls: &[Acl]) -> Result<(), AclError> {
        let bindings = acls.iter().map(binding).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = bindings.iter().map(|binding| binding.pointer).collect();
        let event = self.ask(
            Request::RD_KAFKA_ADMIN_OP_CREATEACLS,
            |client, options, queue| {
                let (first, count) = (pointers.as_mut_ptr(), pointers.len());
                // SAFETY: as many bindings as said, which live until `ask` has the answer; so do the rest.
                unsafe { c::rd_kafka_CreateAcls(client, first, count, options, queue) }
            },
        )?;
        let mut count = 0;
        // SAFETY: as in `list`, with CreateAcls.
        unsafe {
            let result = c::rd_kafka_event_CreateAcls_result(event.pointer);
            if result.is_null() {
                return Err(AclError::Refused("another answer came".to_owned()));
            }
            let all = c::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
            for one in slice(all, count) {
                refusal(c::rd_kafka_acl_result_error(*one))?;
            }
        }
        Ok(())
    }

    /// Takes back exactly these.
    pub(super) fn delete(&self, acls: &[Acl]) -> Result<(), AclError> {
        let filters = acls.iter().map(filter).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = filters.iter().map(|filter| filter.pointer).collect();
        let event = self.ask(
            Request::RD_KAFKA_ADMIN_OP_DELETEACLS,
            |client, options, queue| {
                let (first, count) = (pointers.as_mut_ptr(), pointers.len());
                // SAFETY: as many filters as said, which live until `ask` has the answer; so do the rest.
                unsafe { c::rd_kafka_DeleteAcls(client, first, count, options, queue) }
            },
        )?;
        let mut count = 0;
        // SAFETY: as in `list`, with DeleteAcls.
        unsafe {
            let result = c::rd_kafka_event_DeleteAcls_result(event.pointer);
            if result.is_null() {
                return Err(AclError::Refused("another answer came".to_owned()));
            }
            let all = c::rd_kafka_DeleteAcls_result_responses(result, &raw mut count);
            for one in slice(all, count) {
                refusal(c::rd_kafka_DeleteAcls_result_response_error(*one))?;
            }
        }
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn ask(
        &self,
        request: Request,
        send: impl FnOnce(
            *mut c::rd_kafka_t,
            *const c::rd_kafka_AdminOptions_t,
            *mut c::rd_kafka_queue_t,
        ),
    ) -> Result<Event, AclError> {
        let client = self.client.native_ptr();
        let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap_or(i32::MAX);
        let mut words = [0; WORDS];
        // SAFETY: the client lives as long as `self`; options and queue are made for it and end with their guards, the queue
        // after its event was taken. The buffer has the size that is said.
        let event = unsafe {
            let options = c::rd_kafka_AdminOptions_new(client, request);
            let options = Owned::new(options, c::rd_kafka_AdminOptions_destroy)?;
            c::rd_kafka_AdminOptions_set_request_timeout(
                options.pointer,
                timeout_ms,
                words.as_mut_ptr(),
                WORDS,
            );
            let queue = Owned::new(c::rd_kafka_queue_new(client), c::rd_kafka_queue_destroy)?;
            send(client, options.pointer, queue.pointer);
            // librdkafka ends the request by itself after the same time.
            let event = c::rd_kafka_queue_poll(queue.pointer, timeout_ms.saturating_add(1000));
            Owned::new(event, c::rd_kafka_event_destroy)
        };
        let event = event.map_err(|_| AclError::Refused("no answer".to_owned()))?;
        // SAFETY: the event lives; its text belongs to it.
        let (code, text) = unsafe {
            let code = c::rd_kafka_event_error(event.pointer);
            (code, text(c::rd_kafka_event_error_string(event.pointer)))
        };
        outcome(code.into(), text).map(|()| event)
    }
}

fn outcome(code: RDKafkaErrorCode, words: String) -> Result<(), AclError> {
    match code {
        RDKafkaErrorCode::NoError => Ok(()),
        RDKafkaErrorCode::SecurityDisabled => Err(AclError::NoAuthorizer),
        // A broker's words about this one show its own request.
        RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Err(AclError::Refused(ClientError::AdminOp(code).to_string()))
        }
        _ => Err(AclError::Refused(format!(
            "{}: {words}",
            ClientError::AdminOp(code)
        ))),
    }
}

/// What librdkafka says of one item of an answer.
///
/// # Safety
/// The pointer is null or of an answer that lives.
unsafe fn refusal(error: *const c::rd_kafka_error_t) -> Result<(), AclError> {
    // Null is what librdkafka gives where there was no error; its functions take it so.
    // SAFETY: the caller's.
    let (code, text) = unsafe {
        let code = c::rd_kafka_error_code(error);
        (code, text(c::rd_kafka_error_string(error)))
    };
    outcome(code.into(), text)
}

/// # Safety
/// `first` points to as many as said, or is not looked at.
unsafe fn slice<'a, T>(first: *mut *const T, count: usize) -> &'a [*const T] {
    match first.is_null() || count == 0 {
        true => &[],
        // SAFETY: the caller's.
        false => unsafe { std::slice::from_raw_parts(first, count) },
    }
}

/// # Safety
/// Null, or a text with its zero.
unsafe fn text(from: *const c_char) -> String {
    match from.is_null() {
        true => String::new(),
        // SAFETY: the caller's.
        false => unsafe { CStr::from_ptr(from) }
            .to_string_lossy()
            .into_owned(),
    }
}

/// # Safety
/// An ACL of an answer that lives. librdkafka replaces numbers that its own types lack by UNKNOWN when it reads the answer.
unsafe fn read(acl: *const c::rd_kafka_AclBinding_t) -> Acl {
    // SAFETY: the caller's.
    unsafe {
        Acl {
            principal: text(c::rd_kafka_AclBinding_principal(acl)),
            resource: match c::rd_kafka_AclBinding_restype(acl) {
                CResource::RD_KAFKA_RESOURCE_TOPIC => Resource::Topic,
                CResource::RD_KAFKA_RESOURCE_GROUP => Resource::Group,
                // Kafka's number 4 is the cluster.
                CResource::RD_KAFKA_RESOURCE_BROKER => Resource::Cluster,
                CResource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID => Resource::Transaction,
                _ => Resource::Other,
            },
            pattern: match c::rd_kafka_AclBinding_resource_pattern_type(acl) {
                CPattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL => Pattern::Literal,
                CPattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED => Pattern::Prefixed,
                _ => Pattern::Other,
            },
            name: text(c::rd_kafka_AclBinding_name(acl)),
            operation: match c::rd_kafka_AclBinding_operation(acl) {
                COperation::RD_KAFKA_ACL_OPERATION_READ => Operation::Read,
                COperation::RD_KAFKA_ACL_OPERATION_WRITE => Operation::Write,
                COperation::RD_KAFKA_ACL_OPERATION_ALL => Operation::All,
                other => Operation::Other(other as u32),
            },
            host: text(c::rd_kafka_AclBinding_host(acl)),
            allow: c::rd_kafka_AclBinding_permission_type(acl)
                == CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
        }
    }
}

/// The filter that lets everything through.
fn any() -> Result<Binding, AclError> {
    let mut words = [0; WORDS];
    // SAFETY: null stands for any text; the buffer has the size that is said.
    unsafe {
        let filter = c::rd_kafka_AclBindingFilter_new(
            CResource::RD_KAFKA_RESOURCE_ANY,
            std::ptr::null(),
            CPattern::RD_KAFKA_RESOURCE_PATTERN_ANY,
            std::ptr::null(),
            std::ptr::null(),
            COperation::RD_KAFKA_ACL_OPERATION_ANY,
            CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
            words.as_mut_ptr(),
            WORDS,
        );
        Owned::new(filter, c::rd_kafka_AclBinding_destroy)
    }
}

fn binding(acl: &Acl) -> Result<Binding, AclError> {
    made(acl, c::rd_kafka_AclBinding_new)
}

/// The filter that lets exactly this one through.
fn filter(acl: &Acl) -> Result<Binding, AclError> {
    made(acl, c::rd_kafka_AclBindingFilter_new)
}

/// Both of librdkafka's functions that make one take the same.
type Make = unsafe extern "C" fn(
    CResource,
    *const c_char,
    CPattern,
    *const c_char,
    *const c_char,
    COperation,
    CPermission,
    *mut c_char,
    usize,
) -> *mut c::rd_kafka_AclBinding_t;

fn made(acl: &Acl, make: Make) -> Result<Binding, AclError> {
    let c_text = |text: &str| CString::new(text).map_err(|_| AclError::Name(text.to_owned()));
    let (name, principal, host) = (
        c_text(&acl.name)?,
        c_text(&acl.principal)?,
        c_text(&acl.host)?,
    );
    let unknown = || AclError::Refused(format!("{acl}: librdkafka has no word for it"));
    let resource = match acl.resource {
        Resource::Topic => CResource::RD_KAFKA_RESOURCE_TOPIC,
        Resource::Group => CResource::RD_KAFKA_RESOURCE_GROUP,
        Resource::Cluster => CResource::RD_KAFKA_RESOURCE_BROKER,
        Resource::Transaction => CResource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
        Resource::Other => return Err(unknown()),
    };
    let pattern = match acl.pattern {
        Pattern::Literal => CPattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
        Pattern::Prefixed => CPattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
        Pattern::Other => return Err(unknown()),
    };
    let permission = match acl.allow {
        true => CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
        false => CPermission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY,
    };
    let operation = c_operation(acl.operation).ok_or_else(unknown)?;
    let mut words = [0; WORDS];
    // SAFETY: the texts live until the call returns, which copies them; the buffer has the size that is said.
    unsafe {
        let binding = make(
            resource,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            host.as_ptr(),
            operation,
            permission,
            words.as_mut_ptr(),
            WORDS,
        );
        Owned::new(binding, c::rd_kafka_AclBinding_destroy)
            .map_err(|_| AclError::Refused(format!("{acl}: {}", text(words.as_ptr()))))
    }
}

fn c_operation(operation: Operation) -> Option<COperation> {
    use COperation as Op;
    const OTHERS: [COperation; 8] = [
        Op::RD_KAFKA_ACL_OPERATION_CREATE,
        Op::RD_KAFKA_ACL_OPERATION_DELETE,
        Op::RD_KAFKA_ACL_OPERATION_ALTER,
        Op::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        Op::RD_KAFKA_ACL_OPERATION_CLUSTER_ACTION,
        Op::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
        Op::RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS,
        Op::RD_KAFKA_ACL_OPERATION_IDEMPOTENT_WRITE,
    ];
    match operation {
        Operation::Read => Some(Op::RD_KAFKA_ACL_OPERATION_READ),
        Operation::Write => Some(Op::RD_KAFKA_ACL_OPERATION_WRITE),
        Operation::All => Some(Op::RD_KAFKA_ACL_OPERATION_ALL),
        Operation::Other(number) => OTHERS.into_iter().find(|other| *other as u32 == number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_is_told_it_says_again() {
        for (resource, pattern, operation, allow) in [
            (Resource::Topic, Pattern::Literal, Operation::Write, true),
            (Resource::Group, Pattern::Prefixed, Operation::Read, true),
            (Resource::Cluster, Pattern::Literal, Operation::All, false),
            (Resource::Topic, Pattern::Literal, Operation::Other(8), true),
        ] {
            let acl = Acl {
                principal: "User:a".to_owned(),
                resource,
                pattern,
                name: "b".to_owned(),
                operation,
                host: "*".to_owned(),
                allow,
            };
            let made = binding(&acl).expect("made");
            // SAFETY: it lives until the end of the block.
            assert_eq!(unsafe { read(made.pointer) }, acl);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let acl = Acl {
            principal: "User:\0".to_owned(),
            resource: Resource::Topic,
            pattern: Pattern::Literal,
            name: "b".to_owned(),
            operation: Operation::Read,
            host: "*".to_owned(),
            allow: true,
        };
        assert!(matches!(binding(&acl), Err(AclError::Name(_))));
    }
}
