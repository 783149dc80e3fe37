//! The closed word lists of task definitions, each an enum that shows and reads AWS's spelling.

use serde::{Deserialize, Serialize};

/// A word that is not in a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind}")]
pub struct UnknownWord {
    pub text: String,
    /// The list's name, as ECS calls it.
    pub kind: &'static str,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),*
        }

        impl $name {
            /// Every value, in ECS's order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// ECS's spelling.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err(UnknownWord { text: text.chars().take(256).collect(), kind: stringify!($name) }),
                }
            }
        }
    )*};
}

words! {
    /// How the containers of a task reach the network. Absent means `bridge` on Linux.
    NetworkMode { Bridge = "bridge", Host = "host", Awsvpc = "awsvpc", None = "none" }
    /// What can run a task definition.
    Compatibility { Ec2 = "EC2", Fargate = "FARGATE", External = "EXTERNAL", ManagedInstances = "MANAGED_INSTANCES" }
    /// Whose process namespace the containers share.
    PidMode { Host = "host", Task = "task" }
    /// Whose System V IPC namespace the containers share; `none` gives each container its own.
    IpcMode { Host = "host", Task = "task", None = "none" }
    TransportProtocol { Tcp = "tcp", Udp = "udp" }
    ApplicationProtocol { Http = "http", Http2 = "http2", Grpc = "grpc" }
    /// What a container waits for before it starts.
    ContainerCondition {
        Start = "START",
        /// The other container has exited, whatever its code.
        Complete = "COMPLETE",
        /// The other container has exited with 0.
        Success = "SUCCESS",
        /// The other container's own health check has passed.
        Healthy = "HEALTHY",
    }
    UlimitName {
        Core = "core", Cpu = "cpu", Data = "data", Fsize = "fsize", Locks = "locks", Memlock = "memlock",
        Msgqueue = "msgqueue", Nice = "nice", Nofile = "nofile", Nproc = "nproc", Rss = "rss", Rtprio = "rtprio",
        Rttime = "rttime", Sigpending = "sigpending", Stack = "stack",
    }
    LogDriver {
        JsonFile = "json-file", Syslog = "syslog", Journald = "journald", Gelf = "gelf", Fluentd = "fluentd",
        Awslogs = "awslogs", Splunk = "splunk", Awsfirelens = "awsfirelens",
    }
    FirelensType { Fluentd = "fluentd", Fluentbit = "fluentbit" }
    ResourceType { Gpu = "GPU", InferenceAccelerator = "InferenceAccelerator" }
    EnvironmentFileType { S3 = "s3" }
    VersionConsistency { Enabled = "enabled", Disabled = "disabled" }
    DeviceCgroupPermission { Read = "read", Write = "write", Mknod = "mknod" }
    /// Whether a Docker volume lives with its task or is shared by tasks of the instance.
    DockerVolumeScope { Task = "task", Shared = "shared" }
    /// A switch of the EFS volume configuration.
    EfsSwitch { Enabled = "ENABLED", Disabled = "DISABLED" }
    /// What a managed EBS volume is formatted with.
    FilesystemType { Ext3 = "ext3", Ext4 = "ext4", Xfs = "xfs", Ntfs = "ntfs" }
    /// The one kind of constraint that a task definition may carry.
    DefinitionConstraintType { MemberOf = "memberOf" }
    ProxyType { Appmesh = "APPMESH" }
    CpuArchitecture { X86_64 = "X86_64", Arm64 = "ARM64" }
    OsFamily {
        Linux = "LINUX",
        WindowsServer2019Full = "WINDOWS_SERVER_2019_FULL", WindowsServer2019Core = "WINDOWS_SERVER_2019_CORE",
        WindowsServer2016Full = "WINDOWS_SERVER_2016_FULL", WindowsServer2004Core = "WINDOWS_SERVER_2004_CORE",
        WindowsServer2022Core = "WINDOWS_SERVER_2022_CORE", WindowsServer2022Full = "WINDOWS_SERVER_2022_FULL",
        WindowsServer2025Core = "WINDOWS_SERVER_2025_CORE", WindowsServer2025Full = "WINDOWS_SERVER_2025_FULL",
        WindowsServer20H2Core = "WINDOWS_SERVER_20H2_CORE",
    }
}

/// `tcp` unless told otherwise.
impl Default for TransportProtocol {
    fn default() -> TransportProtocol {
        TransportProtocol::Tcp
    }
}

impl OsFamily {
    pub const fn is_windows(self) -> bool {
        !matches!(self, OsFamily::Linux)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn words_read_back_and_serialise_as_ecs_spells_them() {
        for mode in NetworkMode::ALL {
            assert_eq!(mode.as_str().parse::<NetworkMode>().unwrap(), *mode);
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
        assert_eq!("json-file".parse::<LogDriver>().unwrap(), LogDriver::JsonFile);
        assert!("Bridge".parse::<NetworkMode>().is_err());
    }
}
