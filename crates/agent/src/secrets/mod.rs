//! What containers are given that stands in no payload: secrets and parameters, as variables or as options of log drivers,
//! files of variables, and the credentials of private registries. Fetched with the task's execution role before anything of the task is made.
//!
//! All of a task is fetched at once, by whoever asks first, and kept in memory until the task is forgotten: on disk it
//! stands only where containers are described, for their owner alone. After a start of the agent it is fetched again if
//! there are containers yet to be made.

mod env_file;
mod reference;
mod stores;

pub use reference::InvalidReference;
pub use stores::{Asking, InvalidEndpoint, StoreEndpoint, StoreError, StoreSettings, Stores};

use crate::endpoints::RoleStore;
use crate::images::RegistryAuth;
use gantry_api::acs;
use gantry_decide::task_engine::{Failure, FailureKind, TaskArn};
use gantry_wire::Secret;
use parking_lot::Mutex;
use reference::SecretId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use stores::{PARAMETERS_MAX, member};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long the execution role's credentials may take to come, after a start of the agent.
const CREDENTIALS_MAX: Duration = Duration::from_secs(60);

/// Why a task cannot have what it names. Nothing of any value is in it; the words are those that ECS has.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{RESOURCES}: the task has no execution role")]
    NoRole,
    #[error("{RESOURCES}: the execution role's credentials did not come")]
    NoCredentials,
    #[error("{RESOURCES}: {0}")]
    Reference(#[from] InvalidReference),
    #[error("{RESOURCES}: unable to retrieve secrets from ssm: {0}")]
    Parameters(#[source] StoreError),
    #[error(
        "{RESOURCES}: unable to retrieve secret from asm: failed to fetch secret {arn} from secrets manager: {source}"
    )]
    Secret {
        arn: String,
        #[source]
        source: StoreError,
    },
    #[error(
        "{RESOURCES}: unable to retrieve secret from asm: retrieved secret from Secrets Manager did not contain json key {key}"
    )]
    Key { key: String },
    #[error(
        "{RESOURCES}: unable to get registry auth from asm: {arn} is no JSON object with 'username' and 'password'"
    )]
    Registry { arn: String },
    #[error("failed to download env files: {file}: {source}")]
    File {
        file: String,
        #[source]
        source: StoreError,
    },
    #[error("failed to download env files: {file}: {source}")]
    FileText {
        file: String,
        #[source]
        source: env_file::NotText,
    },
}

/// What ECS says first of secrets and registries' credentials.
const RESOURCES: &str = "unable to pull secrets or registry auth: execution resource retrieval failed";

/// What a task's containers are given.
#[derive(Default)]
pub struct Fetched {
    containers: BTreeMap<String, ForContainer>,
}

/// What one container is given.
#[derive(Default)]
pub struct ForContainer {
    /// The first file that has a variable wins.
    pub files: BTreeMap<String, Secret>,
    pub secrets: BTreeMap<String, Secret>,
    /// Options of its log driver.
    pub log_options: BTreeMap<String, Secret>,
    pub registry: Option<RegistryAuth>,
}

impl Fetched {
    pub fn container(&self, name: &str) -> Option<&ForContainer> {
        self.containers.get(name)
    }
}

type Outcome = Result<Arc<Fetched>, Failure>;

/// See the module.
pub struct Secrets {
    stores: Stores,
    region: String,
    tasks: Mutex<BTreeMap<TaskArn, Arc<OnceCell<Outcome>>>>,
}

impl Secrets {
    /// `region` is that of names that say none.
    pub fn new(settings: StoreSettings, control_plane: &str, region: &str) -> Secrets {
        let stores = Stores::new(settings, control_plane);
        Secrets { stores, region: region.to_owned(), tasks: Mutex::default() }
    }

    /// What a task's containers are given, fetched at the first question.
    ///
    /// # Errors
    /// When any of it cannot be had: the task must not run then.
    pub async fn of(&self, roles: &RoleStore, arn: &TaskArn, task: &acs::Task) -> Outcome {
        if !task.containers.iter().flatten().any(wants) {
            return Ok(Arc::default());
        }
        let cell = Arc::clone(self.tasks.lock().entry(arn.clone()).or_default());
        let fetch = async {
            let fetched = self.fetch(roles, arn, task).await;
            fetched
                .map(Arc::new)
                .map_err(|error| Failure::new(FailureKind::ResourceInitializationError, error.to_string()))
        };
        cell.get_or_init(|| fetch).await.clone()
    }

    pub fn forget(&self, task: &TaskArn) {
        self.tasks.lock().remove(task);
    }

    async fn fetch(
        &self,
        roles: &RoleStore,
        arn: &TaskArn,
        task: &acs::Task,
    ) -> Result<Fetched, SecretsError> {
        let role = task.execution_role_credentials.as_ref().and_then(|role| role.credentials_id.as_deref());
        let role = role.ok_or(SecretsError::NoRole)?;
        let keys = timeout(CREDENTIALS_MAX, roles.wait_for(arn, role));
        let keys = keys.await.map_err(|_| SecretsError::NoCredentials)?;
        let asking = |region| Asking { role: Some(&keys), region };
        let plan = Plan::of(task, &self.region)?;
        let mut values: BTreeMap<&Wanted, Secret> = BTreeMap::new();
        for (region, names) in &plan.parameters {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for some in names.chunks(PARAMETERS_MAX) {
                let found =
                    self.stores.parameters(asking(region), some).await.map_err(SecretsError::Parameters)?;
                for wanted in plan.wanted() {
                    if let Wanted::Parameter { region: of, name } = wanted
                        && let Some(value) = found.get(name).filter(|_| of == region)
                    {
                        values.insert(wanted, value.clone());
                    }
                }
            }
        }
        for (region, secret) in &plan.secrets {
            let text = self.stores.secret(asking(region), secret).await;
            let text = text.map_err(|source| SecretsError::Secret { arn: secret.arn.clone(), source })?;
            for wanted in plan.wanted() {
                let Wanted::Secret { id, key, .. } = wanted else { continue };
                if id == secret {
                    let value = match key {
                        None => text.clone(),
                        Some(key) => {
                            member(&text, key).ok_or_else(|| SecretsError::Key { key: key.clone() })?
                        }
                    };
                    values.insert(wanted, value);
                }
            }
        }
        let mut fetched = Fetched::default();
        for (container, want) in &plan.containers {
            let given = fetched.containers.entry(container.clone()).or_default();
            for (name, wanted) in &want.variables {
                given.secrets.extend(values.get(wanted).map(|value| (name.clone(), value.clone())));
            }
            for (name, wanted) in &want.log_options {
                given.log_options.extend(values.get(wanted).map(|value| (name.clone(), value.clone())));
            }
            if let Some((arn, wanted)) = &want.registry {
                let auth = values.get(wanted).and_then(|text| RegistryAuth::from_secret(text.expose()).ok());
                given.registry = Some(auth.ok_or_else(|| SecretsError::Registry { arn: arn.clone() })?);
            }
            for file in &want.files {
                let (bucket, key) = reference::object(file)?;
                let bytes = self.stores.object(asking(&self.region), bucket, key, None).await;
                let bytes = bytes.map_err(|source| SecretsError::File { file: file.clone(), source })?;
                let pairs = env_file::parse(&bytes)
                    .map_err(|source| SecretsError::FileText { file: file.clone(), source })?;
                for (name, value) in pairs {
                    given.files.entry(name.to_owned()).or_insert_with(|| Secret::new(value));
                }
            }
        }
        Ok(fetched)
    }
}

/// Whether a secret is an option of its container's log driver.
fn is_log_option(secret: &acs::ContainerSecret) -> bool {
    secret.target.as_deref() == Some("LOG_DRIVER")
}

/// The names of a container's log options whose values are fetched.
pub fn log_options(container: &acs::Container) -> impl Iterator<Item = &str> {
    let secrets = container.secrets.iter().flatten().filter(|secret| is_log_option(secret));
    secrets.filter_map(|secret| secret.name.as_deref())
}

fn wants(container: &acs::Container) -> bool {
    container.secrets.as_ref().is_some_and(|all| !all.is_empty())
        || container.environment_files.as_ref().is_some_and(|all| !all.is_empty())
        || container.registry_authentication.is_some()
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Parameter { region: String, name: String },
    Secret { region: String, id: SecretId, key: Option<String> },
}

impl Wanted {
    fn secret(text: &str, own_region: &str) -> Result<Wanted, InvalidReference> {
        let region = reference::region(text).unwrap_or(own_region).to_owned();
        let (id, key) = reference::secret(text)?;
        Ok(Wanted::Secret { region, id, key })
    }
}

/// What one container names.
#[derive(Default)]
struct Want {
    variables: Vec<(String, Wanted)>,
    log_options: Vec<(String, Wanted)>,
    /// The secret's ARN as it was given, and the secret.
    registry: Option<(String, Wanted)>,
    files: Vec<String>,
}

/// What is to be fetched, each once.
#[derive(Default)]
struct Plan {
    containers: BTreeMap<String, Want>,
    /// Names by region.
    parameters: BTreeMap<String, BTreeSet<String>>,
    /// Regions with them.
    secrets: BTreeSet<(String, SecretId)>,
}

impl Plan {
    fn of(task: &acs::Task, own_region: &str) -> Result<Plan, InvalidReference> {
        let mut plan = Plan::default();
        for container in task.containers.iter().flatten().filter(|container| wants(container)) {
            let mut want = Want::default();
            for secret in container.secrets.iter().flatten() {
                let from = secret.value_from.as_deref().unwrap_or_default();
                let region =
                    secret.region.as_deref().filter(|region| !region.is_empty()).unwrap_or(own_region);
                let wanted = match secret.provider.as_deref() {
                    Some("asm") => Wanted::secret(from, region)?,
                    _ => Wanted::Parameter { region: region.to_owned(), name: reference::parameter(from)? },
                };
                let kind = if is_log_option(secret) { &mut want.log_options } else { &mut want.variables };
                kind.push((secret.name.clone().unwrap_or_default(), wanted));
            }
            let registry =
                container.registry_authentication.as_ref().and_then(|auth| auth.asm_auth_data.as_ref());
            if let Some(data) = registry {
                let arn = data.credentials_parameter.clone().unwrap_or_default();
                let region = data.region.as_deref().unwrap_or(own_region);
                want.registry = Some((arn.clone(), Wanted::secret(&arn, region)?));
            }
            let files = container.environment_files.iter().flatten();
            want.files = files.filter_map(|file| file.value.clone()).collect();
            plan.containers.insert(container.name.clone().unwrap_or_default(), want);
        }
        let all: Vec<Wanted> = plan.wanted().cloned().collect();
        for wanted in all {
            match wanted {
                Wanted::Parameter { region, name } => {
                    plan.parameters.entry(region).or_default().insert(name);
                }
                Wanted::Secret { region, id, .. } => {
                    plan.secrets.insert((region, id));
                }
            }
        }
        Ok(plan)
    }

    fn wanted(&self) -> impl Iterator<Item = &Wanted> {
        self.containers.values().flat_map(|want| {
            let registry = want.registry.iter().map(|(_, wanted)| wanted);
            want.variables.iter().chain(&want.log_options).map(|(_, wanted)| wanted).chain(registry)
        })
    }
}

#[cfg(test)]
mod tests;
