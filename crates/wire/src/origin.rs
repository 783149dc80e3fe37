//! Guards a server on localhost against the pages in its user's browser.

/// Whether the headers show a browser page that attacks a local server: a `Host` that is not an address or a known
/// name (DNS rebinding), or an `Origin` of another site.
pub fn is_hostile(host: Option<&str>, origin: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    if !is_local_name(name_of(host)) {
        return true;
    }
    match origin {
        None => false,
        Some(origin) => {
            let site = origin.split_once("://").map_or(origin, |(_, site)| site);
            !site.eq_ignore_ascii_case(host)
        }
    }
}

fn name_of(host: &str) -> &str {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default()
}

/// Names that no stranger's DNS can point here: addresses, `localhost` and names below it, AWS's own names (which
/// clients with a proxy or hosts entry use), and names without a dot, as container networks give.
fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.parse::<std::net::IpAddr>().is_ok()
        || !name.contains('.')
        || name.ends_with(".localhost")
        || name.ends_with(".amazonaws.com")
        || name.ends_with(".internal")
        || name.ends_with(".local")
}

#[cfg(test)]
mod tests {
    use super::is_hostile;

    #[test]
    fn pages_of_other_sites_are_hostile() {
        assert!(!is_hostile(Some("127.0.0.1:4566"), None));
        assert!(!is_hostile(Some("[::1]:4566"), None));
        assert!(!is_hostile(Some("localhost:4566"), Some("http://localhost:4566")));
        assert!(is_hostile(Some("localhost:4566"), Some("https://evil.example")));
        assert!(is_hostile(Some("evil.example:4566"), None));
        assert!(is_hostile(Some("127.0.0.1:4566"), Some("null")));
    }
}
