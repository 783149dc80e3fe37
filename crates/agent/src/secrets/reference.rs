//! What `valueFrom` and its like name: secrets, parameters and objects.

/// Text that names nothing of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {text}")]
pub struct InvalidReference {
    what: &'static str,
    text: String,
}

fn invalid(what: &'static str, text: &str) -> InvalidReference {
    InvalidReference { what, text: text.chars().take(256).collect() }
}

/// A version of a secret of Secrets Manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretId {
    pub arn: String,
    pub version_stage: Option<String>,
    pub version_id: Option<String>,
}

/// `ARN[:json-key:version-stage:version-id]`: the secret, and the member of its JSON that is wanted.
pub fn secret(text: &str) -> Result<(SecretId, Option<String>), InvalidReference> {
    let parts: Vec<&str> = text.split(':').collect();
    let given = |part: &&str| Some((*part).to_owned()).filter(|part| !part.is_empty());
    // `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME` are seven; all three of the others or none.
    let ([_, _, "secretsmanager", _, _, "secret", name], rest) =
        parts.split_first_chunk::<7>().ok_or_else(|| invalid("secret ARN", text))?
    else {
        return Err(invalid("secret ARN", text));
    };
    if name.is_empty() || !matches!(rest.len(), 0 | 3) {
        return Err(invalid("secret ARN", text));
    }
    let secret = SecretId {
        arn: parts[..7].join(":"),
        version_stage: rest.get(1).and_then(given),
        version_id: rest.get(2).and_then(given),
    };
    Ok((secret, rest.first().and_then(given)))
}

/// The region in an ARN.
pub fn region(text: &str) -> Option<&str> {
    let region = text.strip_prefix("arn:")?.split(':').nth(2)?;
    (!region.is_empty()).then_some(region)
}

/// The name of a parameter, given so or in its ARN, where the slash that begins a path stands for itself.
pub fn parameter(text: &str) -> Result<String, InvalidReference> {
    let name = match text.strip_prefix("arn:") {
        None => text.to_owned(),
        Some(rest) => {
            let resource =
                rest.splitn(5, ':').nth(4).and_then(|resource| resource.strip_prefix("parameter/"));
            let name = resource.ok_or_else(|| invalid("parameter ARN", text))?;
            if name.contains('/') { format!("/{name}") } else { name.to_owned() }
        }
    };
    if name.is_empty() { Err(invalid("parameter", text)) } else { Ok(name) }
}

/// The bucket and the key of an object, `arn:aws:s3:::BUCKET/KEY`.
pub fn object(text: &str) -> Result<(&str, &str), InvalidReference> {
    let found = || {
        let resource = text.strip_prefix("arn:")?.splitn(5, ':').nth(4)?;
        let is_s3 = text.split(':').nth(2) == Some("s3");
        resource.split_once('/').filter(|(bucket, key)| is_s3 && !bucket.is_empty() && !key.is_empty())
    };
    found().ok_or_else(|| invalid("object ARN", text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-north-1:111122223333:secret:db-AbCdEf";

    #[test]
    fn secrets_are_named_whole_or_in_part() {
        let read = |rest: &str| {
            let (id, key) = secret(&format!("{ARN}{rest}")).unwrap();
            assert_eq!(id.arn, ARN);
            (key, id.version_stage, id.version_id)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(""), (None, None, None));
        assert_eq!(read(":password::"), (some("password"), None, None));
        assert_eq!(read("::AWSPREVIOUS:"), (None, some("AWSPREVIOUS"), None));
        assert_eq!(read(":k::9d4cb84b"), (some("k"), None, some("9d4cb84b")));
        for wrong in [
            "db",
            "arn:aws:secretsmanager:eu-north-1:111122223333:secret:",
            &format!("{ARN}:k"),
            &format!("{ARN}:a:b:c:d"),
        ] {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
        assert_eq!(region(ARN), Some("eu-north-1"));
        assert_eq!((region("db"), region("arn:aws:s3:::b/k")), (None, None));
    }

    #[test]
    fn parameters_and_objects_are_named_by_arn() {
        let name = |text: &str| parameter(text).ok();
        assert_eq!(name("plain").as_deref(), Some("plain"));
        assert_eq!(name("/a/b").as_deref(), Some("/a/b"));
        assert_eq!(name("arn:aws:ssm:eu-north-1:111122223333:parameter/plain").as_deref(), Some("plain"));
        assert_eq!(name("arn:aws:ssm:eu-north-1:111122223333:parameter/a/b").as_deref(), Some("/a/b"));
        assert_eq!((name(""), name("arn:aws:ssm:eu-north-1:1:document/x")), (None, None));
        assert_eq!(object("arn:aws:s3:::bucket/a/b.env"), Ok(("bucket", "a/b.env")));
        for wrong in ["bucket/key", "arn:aws:s3:::bucket", "arn:aws:s3:::bucket/", "arn:aws:ec2:::bucket/key"]
        {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }
}
