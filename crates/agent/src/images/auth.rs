//! Registry credentials in the forms in which they reach an agent.

use super::reference::{DOCKER_HUB, Reference};
use super::registry::RegistryAuth;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A client that knows thousands of registries has a file of some hundred kB.
const MAX_FILE: u64 = 4 << 20;

/// Credentials that cannot be used. The texts hold nothing of the secrets.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the secret is not a JSON object with 'username' and 'password'")]
    Secret,
    #[error("the authorization token is not base64 of 'user:password'")]
    Token,
    #[error("ECS_ENGINE_AUTH_DATA is not what ECS_ENGINE_AUTH_TYPE '{0}' says")]
    EngineData(String),
    #[error("ECS_ENGINE_AUTH_TYPE is dockercfg or docker")]
    EngineType,
    #[error("{} cannot be read", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not a Docker client's configuration", .0.display())]
    NotDockers(PathBuf),
}

impl RegistryAuth {
    /// From a secret in Secrets Manager, as `repositoryCredentials` names it.
    pub fn from_secret(json: &str) -> Result<RegistryAuth, AuthError> {
        #[derive(Deserialize)]
        struct Secret {
            username: String,
            password: String,
        }
        let secret: Secret = serde_json::from_str(json).map_err(|_| AuthError::Secret)?;
        Ok(RegistryAuth::Basic { username: secret.username, password: secret.password })
    }

    /// From ECR's `authorizationToken`, which is the base64 of `AWS:password`.
    pub fn from_token(token: &str) -> Result<RegistryAuth, AuthError> {
        let text = STANDARD.decode(token.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or(AuthError::Token)?;
        let (username, password) = text.split_once(':').ok_or(AuthError::Token)?;
        Ok(RegistryAuth::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

/// The agent's own credentials by registry, from `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA`.
#[derive(Clone, Debug, Default)]
pub struct EngineAuth {
    /// By registry host.
    registries: BTreeMap<String, RegistryAuth>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
struct Nested {
    auths: BTreeMap<String, Entry>,
}

impl Entry {
    /// None if the secrets are elsewhere, as with a client's credential helper.
    fn read(self) -> Result<Option<RegistryAuth>, AuthError> {
        match self {
            Entry { username: Some(username), password: Some(password), .. } => {
                Ok(Some(RegistryAuth::Basic { username, password }))
            }
            Entry { auth: Some(auth), .. } if !auth.is_empty() => RegistryAuth::from_token(&auth).map(Some),
            _ => Ok(None),
        }
    }
}

impl EngineAuth {
    /// `kind` is `dockercfg` (`{"registry": {"auth": base64}}`, in `data` perhaps below `auths`) or `docker`
    /// (`{"registry": {"username": ..., "password": ...}}`).
    pub fn parse(kind: &str, data: &str) -> Result<EngineAuth, AuthError> {
        if !matches!(kind, "dockercfg" | "docker") {
            return Err(AuthError::EngineType);
        }
        let bad = || AuthError::EngineData(kind.to_owned());
        let entries = match serde_json::from_str::<Nested>(data) {
            Ok(nested) => nested.auths,
            Err(_) => serde_json::from_str(data).map_err(|_| bad())?,
        };
        let mut registries = BTreeMap::new();
        for (registry, entry) in entries {
            registries.insert(host(&registry).to_owned(), entry.read()?.ok_or_else(bad)?);
        }
        Ok(EngineAuth { registries })
    }

    /// From a Docker client's `config.json`. Registries whose secrets a credential helper keeps are left out.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn from_file(path: &Path) -> Result<EngineAuth, AuthError> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| AuthError::File { path: path.to_owned(), source })?;
        let config: Nested =
            serde_json::from_str(&text).map_err(|_| AuthError::NotDockers(path.to_owned()))?;
        let mut registries = BTreeMap::new();
        for (registry, entry) in config.auths {
            registries.extend(entry.read()?.map(|auth| (host(&registry).to_owned(), auth)));
        }
        Ok(EngineAuth { registries })
    }

    /// Both; where both know a registry, `other` has the word.
    pub fn with(mut self, other: EngineAuth) -> EngineAuth {
        self.registries.extend(other.registries);
        self
    }

    /// What to show to the registry of `image`, if anything.
    pub fn for_image(&self, image: &Reference) -> Option<&RegistryAuth> {
        self.registries.get(image.registry())
    }
}

/// The host in a registry's name, which may be written as an address: `https://index.docker.io/v1/`.
fn host(registry: &str) -> &str {
    let rest =
        registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn basic(username: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic { username: username.into(), password: password.into() }
    }

    #[test]
    fn secrets_and_tokens_are_read() {
        let secret = RegistryAuth::from_secret(r#"{"username":"u","password":"p:w","other":1}"#).unwrap();
        assert_eq!(secret, basic("u", "p:w"));
        assert_eq!(RegistryAuth::from_token(&STANDARD.encode("AWS:a:b")).unwrap(), basic("AWS", "a:b"));
        let error = RegistryAuth::from_secret(r#"{"password":"hunter2"}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(RegistryAuth::from_token("***").is_err());
    }

    #[test]
    fn the_agents_own_credentials_are_found_by_registry() {
        let auth = STANDARD.encode("u:p");
        let data = format!(r#"{{"https://index.docker.io/v1/":{{"auth":"{auth}","email":"e"}}}}"#);
        let engine = EngineAuth::parse("dockercfg", &data).unwrap();
        assert_eq!(engine.for_image(&"nginx".parse().unwrap()), Some(&basic("u", "p")));
        assert_eq!(engine.for_image(&"other.example/nginx".parse().unwrap()), None);
        let nested = format!(r#"{{"auths":{{"other.example":{{"auth":"{auth}"}}}}}}"#);
        let engine = EngineAuth::parse("dockercfg", &nested).unwrap();
        assert_eq!(engine.for_image(&"other.example/nginx".parse().unwrap()), Some(&basic("u", "p")));
        let engine =
            EngineAuth::parse("docker", r#"{"r.example:5000":{"username":"a","password":"b"}}"#).unwrap();
        assert_eq!(engine.for_image(&"r.example:5000/x".parse().unwrap()), Some(&basic("a", "b")));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let text = format!(
            r#"{{"auths":{{"a.example":{{"auth":"{auth}"}},"helped.example":{{}}}},"credsStore":"secretservice"}}"#
        );
        std::fs::write(&file, text).unwrap();
        let of_file = EngineAuth::from_file(&file).unwrap();
        assert_eq!(of_file.for_image(&"a.example/x".parse().unwrap()), Some(&basic("u", "p")));
        assert_eq!(of_file.for_image(&"helped.example/x".parse().unwrap()), None);
        let other = EngineAuth::parse("docker", r#"{"a.example":{"username":"c","password":"d"}}"#).unwrap();
        assert_eq!(of_file.with(other).for_image(&"a.example/x".parse().unwrap()), Some(&basic("c", "d")));
        assert!(matches!(EngineAuth::from_file(dir.path()), Err(AuthError::File { .. })));
        std::fs::write(&file, "{}").unwrap();
        assert!(matches!(EngineAuth::from_file(&file), Err(AuthError::NotDockers(_))));
        for (kind, data) in [("docker", "["), ("docker", r#"{"r":{}}"#), ("other", "{}")] {
            assert!(EngineAuth::parse(kind, data).is_err());
        }
    }
}
