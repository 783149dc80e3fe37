//! Files of variables, as `environmentFiles` names them: a line a variable, and comments.

/// A file that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is not encoded in UTF-8")]
pub struct NotText;

/// The variables of a file, as ECS documents it: everything behind the first equals sign is the value, blanks and quotation
/// marks too; lines that begin with `#`, and those that name nothing, are left out.
pub fn parse(bytes: &[u8]) -> Result<Vec<(&str, &str)>, NotText> {
    let text = std::str::from_utf8(bytes).map_err(|_| NotText)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // No variable's value can hold a zero byte.
    let pairs = lines.filter_map(|line| line.split_once('=')).filter(|(_, value)| !value.contains('\0'));
    Ok(pairs.filter(|(name, _)| !name.is_empty() && !name.contains('\0')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables() {
        let file = "A=1\r\n#B=2\n\nC= two words \nD=\"quoted\"\nnothing\n=no name\nE=a=b\nF=";
        let read = parse(file.as_bytes());
        let expected = vec![("A", "1"), ("C", " two words "), ("D", "\"quoted\""), ("E", "a=b"), ("F", "")];
        assert_eq!(read, Ok(expected));
        assert_eq!(parse(b"A=\xff"), Err(NotText));
        assert_eq!(parse(b""), Ok(Vec::new()));
    }
}
