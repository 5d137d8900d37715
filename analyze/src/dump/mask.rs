//! Values that are masked unless asked for.

/// Options whose value is a secret when their name contains one of these.
const SECRET: [&str; 7] = ["pass", "secret", "token", "key", "credential", "auth", "dsn"];

/// A command line with the values of options that look like secrets replaced by `?`: `--password=x`, `--token x`, and
/// the password in `scheme://user:password@host`.
pub fn mask_arguments(arguments: &[String]) -> Vec<String> {
    let mut masked = Vec::with_capacity(arguments.len());
    let mut hide_next = false;
    for argument in arguments {
        if std::mem::take(&mut hide_next) && !argument.starts_with('-') {
            masked.push("?".to_string());
            continue;
        }
        let name_end = argument.find('=').unwrap_or(argument.len());
        let name = argument.get(..name_end).unwrap_or_default().to_ascii_lowercase();
        let secret = SECRET.iter().any(|word| name.contains(word));
        if secret && name_end < argument.len() {
            masked.push(format!("{}=?", argument.get(..name_end).unwrap_or_default()));
        } else {
            hide_next = secret && argument.starts_with('-');
            // MySQL's clients take -pPASSWORD.
            let short = argument.len() > 2 && argument.starts_with("-p") && !argument.starts_with("--");
            let program =
                masked.first().is_some_and(|first: &String| first.contains("mysql") || first.contains("mariadb"));
            masked.push(if short && program { "-p?".to_string() } else { mask_url(argument) });
        }
    }
    masked
}

fn mask_url(argument: &str) -> String {
    let Some(scheme) = argument.find("://").map(|at| at + 3) else { return argument.to_string() };
    let rest = argument.get(scheme..).unwrap_or_default();
    let authority = rest.get(..rest.find('/').unwrap_or(rest.len())).unwrap_or_default();
    match (authority.rfind('@'), authority.find(':')) {
        (Some(at), Some(colon)) if colon < at => {
            let head = argument.get(..scheme + colon + 1).unwrap_or_default();
            format!("{head}?{}", rest.get(at..).unwrap_or_default())
        }
        _ => argument.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(line: &str) -> String {
        mask_arguments(&line.split(' ').map(String::from).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn secrets_on_command_lines_are_masked() {
        assert_eq!(mask("app --db-password=hunter2 --port 80"), "app --db-password=? --port 80");
        assert_eq!(mask("app --token abc --verbose"), "app --token ? --verbose");
        assert_eq!(mask("app postgres://u:p4ss@db/x?y=1"), "app postgres://u:?@db/x?y=1");
        assert_eq!(mask("mysql -uroot -psecret"), "mysql -uroot -p?");
        assert_eq!(mask("nginx -c /etc/nginx.conf"), "nginx -c /etc/nginx.conf");
        assert_eq!(mask("API_KEY=zzz run"), "API_KEY=? run");
    }
}
