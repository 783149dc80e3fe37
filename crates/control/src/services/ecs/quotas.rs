//! ECS's quotas: how much of each thing an account may have in a region. Their defaults are ECS's own; the operator of
//! an installation may set others.

use super::errors::EcsError;

/// A quota that cannot be set so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    #[error("'{0}' is no quota; there are: {all}", all = Quotas::names().join(", "))]
    Name(String),
    #[error("'{value}' is no value of the quota {name}: a whole number above 0")]
    Value { name: String, value: String },
}

macro_rules! quotas {
    ($($(#[$doc:meta])* $field:ident $name:literal $default:literal;)*) => {
        /// All of them. By name, in words and hyphens, they can be set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Quotas { $($(#[$doc])* pub $field: u32,)* }

        impl Default for Quotas {
            fn default() -> Quotas {
                Quotas { $($field: $default,)* }
            }
        }

        impl Quotas {
            pub fn names() -> &'static [&'static str] {
                &[$($name),*]
            }

            fn field(&mut self, name: &str) -> Option<&mut u32> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

quotas! {
    /// Active clusters.
    clusters "clusters" 10_000;
    /// Services of a cluster that are not deleted.
    services "services-per-cluster" 5_000;
    /// The desired count of a service.
    tasks "tasks-per-service" 5_000;
    /// Tasks of a service that are replaced within a minute as they end, and at once before that counts. Above 60,000 none
    /// waits.
    replaced_tasks "replaced-tasks-per-service-and-minute" 500;
    /// Registered container instances of a cluster, or of the Fargate pool.
    container_instances "container-instances-per-cluster" 5_000;
    /// Capacity providers that a cluster is associated with.
    capacity_providers "capacity-providers-per-cluster" 20;
    /// Tasks of a cluster that wait for instances.
    provisioning_tasks "provisioning-tasks-per-cluster" 500;
    /// Minutes for which they wait.
    provisioning_minutes "provisioning-minutes" 30;
    /// Revisions that a family of task definitions ever has.
    revisions "revisions-per-family" 1_000_000;
    /// Attributes that users gave to a container instance.
    custom_attributes "custom-attributes-per-container-instance" 10;
}

impl Quotas {
    /// Sets one of them.
    ///
    /// # Errors
    /// For a name that is not known, and for text that is no whole number above 0.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidQuota> {
        let field = self.field(name).ok_or_else(|| InvalidQuota::Name(name.to_owned()))?;
        let invalid = || InvalidQuota::Value { name: name.to_owned(), value: value.to_owned() };
        *field = value.parse().ok().filter(|value| *value > 0).ok_or_else(invalid)?;
        Ok(())
    }
}

/// Refuses one more where there are as many as may be. Counting costs something: `at_most` is a number that is quickly
/// known and never below the count.
///
/// # Errors
/// `ClientException`, with what there is too much of.
pub fn check(what: &str, quota: u32, at_most: usize, count: impl FnOnce() -> usize) -> Result<(), EcsError> {
    let quota = quota as usize;
    if at_most < quota || count() < quota {
        return Ok(());
    }
    Err(EcsError::client(format!("The quota of {quota} {what} is exceeded.")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_quota_can_be_set_by_its_name() {
        let mut quotas = Quotas::default();
        for name in Quotas::names() {
            quotas.set(name, "7").unwrap();
            assert_eq!(quotas.field(name).copied(), Some(7), "{name}");
        }
        assert_eq!(quotas.set("colour", "7"), Err(InvalidQuota::Name("colour".to_owned())));
        for value in ["", "0", "-1", "many", "4294967296"] {
            assert!(quotas.set("clusters", value).is_err(), "{value}");
        }
    }
}
