//! What actions make of a request's address: rewriting before it is forwarded, and the place a redirect names.

use super::config::{Redirect, Rewrite, Transform};
use super::pattern::{InvalidPattern, regex};
use regex::bytes::Regex;

/// Rewriting of host, and of path and query.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    host: Vec<(Regex, String)>,
    url: Vec<(Regex, String)>,
}

impl Transforms {
    /// Compiles a rule's transforms.
    ///
    /// # Errors
    /// When an expression is none, or too large.
    pub fn compile(transforms: &[Transform]) -> Result<Transforms, InvalidPattern> {
        let mut compiled = Transforms::default();
        for transform in transforms {
            let (into, rewrites) = match transform {
                Transform::Host(rewrites) => (&mut compiled.host, rewrites),
                Transform::Url(rewrites) => (&mut compiled.url, rewrites),
            };
            for Rewrite { regex: text, replace } in rewrites {
                into.push((regex(text, false)?, delimited(replace)));
            }
        }
        Ok(compiled)
    }

    pub fn is_empty(&self) -> bool {
        self.host.is_empty() && self.url.is_empty()
    }

    /// The host to forward with; None where no expression matches.
    pub fn host(&self, host: &[u8]) -> Option<Vec<u8>> {
        rewrite(&self.host, host)
    }

    /// Path and query to forward with; None where no expression matches.
    pub fn url(&self, url: &[u8]) -> Option<Vec<u8>> {
        rewrite(&self.url, url)
    }
}

/// A replacement in which `$1` means the first group whatever follows it.
fn delimited(replace: &str) -> String {
    let mut text = String::with_capacity(replace.len() + 8);
    let mut letters = replace.chars().peekable();
    while let Some(letter) = letters.next() {
        text.push(letter);
        if letter != '$' {
            continue;
        }
        match letters.next_if(|next| next.is_ascii_digit() || *next == '$') {
            Some('$') => text.push('$'),
            Some(digit) => text.extend(['{', digit, '}']),
            None => {}
        }
    }
    text
}

fn rewrite(rewrites: &[(Regex, String)], text: &[u8]) -> Option<Vec<u8>> {
    let (regex, replace) = rewrites.iter().find(|(regex, _)| regex.is_match(text))?;
    Some(regex.replace(text, replace.as_bytes()).into_owned())
}

/// The parts of the address that a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `http` or `https`.
    pub protocol: &'a str,
    pub host: &'a str,
    /// The listener's.
    pub port: u16,
    pub path: &'a str,
    pub query: &'a str,
}

impl Redirect {
    /// The `Location` that a redirect answers with. It has a port always, and no empty query.
    pub fn location(&self, asked: Asked<'_>) -> String {
        let port = asked.port.to_string();
        let fill = |template: &str| {
            let mut text = String::with_capacity(template.len() + 32);
            let mut rest = template;
            while let Some((before, after)) = rest.split_once("#{") {
                text.push_str(before);
                let (name, behind) = after.split_once('}').unwrap_or((after, ""));
                text.push_str(match name {
                    "protocol" => asked.protocol,
                    "host" => asked.host,
                    "port" => &port,
                    "path" => asked.path.strip_prefix('/').unwrap_or(asked.path),
                    "query" => asked.query,
                    _ => "",
                });
                rest = behind;
            }
            text.push_str(rest);
            text
        };
        let protocol = fill(&self.protocol).to_ascii_lowercase();
        let (host, port) = (fill(&self.host), fill(&self.port));
        let (path, query) = (fill(&self.path), fill(&self.query));
        let query = if query.is_empty() { query } else { format!("?{query}") };
        format!("{protocol}://{host}:{port}{path}{query}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ASKED: Asked<'_> =
        Asked { protocol: "http", host: "shop.example", port: 80, path: "/a/b", query: "x=1&y=2" };

    #[test]
    fn a_redirect_keeps_what_it_does_not_change() {
        let to_https =
            Redirect { protocol: "HTTPS".to_owned(), port: "443".to_owned(), ..Redirect::default() };
        assert_eq!(to_https.location(ASKED), "https://shop.example:443/a/b?x=1&y=2");
        let elsewhere = Redirect {
            host: "www.#{host}".to_owned(),
            path: "/new/#{path}".to_owned(),
            query: "#{query}&from=#{port}".to_owned(),
            ..Redirect::default()
        };
        assert_eq!(elsewhere.location(ASKED), "http://www.shop.example:80/new/a/b?x=1&y=2&from=80");
        let bare = Asked { port: 8080, query: "", ..ASKED };
        assert_eq!(Redirect::default().location(bare), "http://shop.example:8080/a/b");
    }

    #[test]
    fn the_first_expression_that_matches_rewrites() {
        let rewrite =
            |regex: &str, replace: &str| Rewrite { regex: regex.to_owned(), replace: replace.to_owned() };
        let transforms = Transforms::compile(&[
            Transform::Url(vec![rewrite("^/api/(.*)$", "/$1"), rewrite("^/", "/never")]),
            Transform::Host(vec![rewrite("^(.*)\\.example$", "$1.internal")]),
        ])
        .unwrap();
        assert_eq!(transforms.url(b"/api/v1?x").unwrap(), b"/v1?x");
        assert_eq!(transforms.host(b"shop.example").unwrap(), b"shop.internal");
        assert_eq!(transforms.host(b"shop.test"), None);
    }

    #[test]
    fn a_group_ends_with_its_digit() {
        let replaced = |replace: &str| {
            let rewrite = Rewrite { regex: "^/(a)(.*)$".to_owned(), replace: replace.to_owned() };
            let transforms = Transforms::compile(&[Transform::Url(vec![rewrite])]).unwrap();
            String::from_utf8(transforms.url(b"/a/x").unwrap()).unwrap()
        };
        for (replace, expected) in [
            ("/$1b$2", "/ab/x"),
            ("/$1_1$2", "/a_1/x"),
            ("/$10$2", "/a0/x"),
            ("/${1}$$1", "/a$1"),
            ("/$", "/$"),
        ] {
            assert_eq!(replaced(replace), expected, "{replace}");
        }
    }
}
