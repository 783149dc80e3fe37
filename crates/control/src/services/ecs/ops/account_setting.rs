//! Account settings: what a principal set, else what the account set, else ECS's default.

use crate::call::Call;
use crate::page::{Page, SHORT_MAX};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{AccountSetting, AccountSettingKey};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::Arn;

/// A setting that exists: its name, the values it may take, and ECS's default.
struct Known {
    name: &'static str,
    values: &'static [&'static str],
    default: &'static str,
}

const SWITCH: &[&str] = &["enabled", "disabled"];
/// New ARNs and ids are the only ones here, so that these cannot be switched off.
const ALWAYS: &[&str] = &["enabled"];

const fn known(name: &'static str, values: &'static [&'static str], default: &'static str) -> Known {
    Known { name, values, default }
}

/// In the order of their names.
const SETTINGS: [Known; 11] = [
    known("awsvpcTrunking", SWITCH, "disabled"),
    known("containerInsights", &["enabled", "disabled", "enhanced"], "disabled"),
    known("containerInstanceLongArnFormat", ALWAYS, "enabled"),
    known("defaultLogDriverMode", &["blocking", "non-blocking"], "non-blocking"),
    known("fargateEventWindows", SWITCH, "disabled"),
    known("fargateFIPSMode", SWITCH, "disabled"),
    known("fargateTaskRetirementWaitPeriod", &["0", "7", "14"], "7"),
    // Managed by AWS: it can be read, not set.
    known("guardDutyActivate", &[], "off"),
    known("serviceLongArnFormat", ALWAYS, "enabled"),
    known("tagResourceAuthorization", &["on", "off"], "on"),
    known("taskLongArnFormat", ALWAYS, "enabled"),
];

fn find(name: ecs::SettingName) -> Result<&'static Known, EcsError> {
    let name = name.as_str();
    SETTINGS
        .iter()
        .find(|known| known.name == name)
        .ok_or_else(|| EcsError::invalid(format!("Unknown setting {name}.")))
}

/// The value that applies to a principal.
pub fn effective(view: View<'_>, principal_arn: &str, name: &str) -> String {
    let explicit = own(view, principal_arn, name).or_else(|| of_account(view, name));
    let default = || SETTINGS.iter().find(|known| known.name == name).map_or("", |known| known.default);
    explicit.map_or_else(|| default().to_owned(), |setting| setting.value.clone())
}

fn own<'a>(view: View<'a>, principal_arn: &str, name: &str) -> Option<&'a AccountSetting> {
    let key = AccountSettingKey { principal_arn: Some(principal_arn.to_owned()), name: name.to_owned() };
    view.state.ecs.account_settings.get(&key).map(AsRef::as_ref)
}

fn of_account<'a>(view: View<'a>, name: &str) -> Option<&'a AccountSetting> {
    let key = AccountSettingKey { principal_arn: None, name: name.to_owned() };
    view.state.ecs.account_settings.get(&key).map(AsRef::as_ref)
}

/// The ARN of the account itself, whose settings are everybody's defaults.
fn root(view: View<'_>) -> String {
    format!("arn:aws:iam::{}:root", view.scope.account)
}

/// Whose settings a request means; `None` is the account.
fn principal(view: View<'_>, call: &Call, given: Option<&str>) -> Result<Option<String>, EcsError> {
    let arn = match given {
        None | Some("") => call.caller.arn(),
        Some(text) => {
            let arn: Arn = text.parse()?;
            if arn.service != "iam" && arn.service != "sts" || arn.account != view.scope.account.to_string() {
                return Err(EcsError::invalid(format!("Invalid principalArn: {text}")));
            }
            text.to_owned()
        }
    };
    Ok(Some(arn).filter(|arn| *arn != root(view)))
}

fn shape(name: &str, value: Option<&str>, principal_arn: String) -> ecs::Setting {
    let kind = if name == "guardDutyActivate" { "aws_managed" } else { "user" };
    ecs::Setting {
        name: name.parse().ok(),
        value: value.map(str::to_owned),
        principal_arn: Some(principal_arn),
        type_: kind.parse().ok(),
    }
}

fn put(
    tx: &mut Tx<'_>,
    principal_arn: Option<String>,
    name: ecs::SettingName,
    value: &str,
) -> Result<ecs::Setting, EcsError> {
    let known = find(name)?;
    if known.values.is_empty() {
        return Err(EcsError::invalid(format!("The setting {} is managed by AWS.", known.name)));
    }
    if !known.values.contains(&value) {
        let values = known.values.join(", ");
        return Err(EcsError::invalid(format!("Invalid value for {}. Valid values: {values}.", known.name)));
    }
    let shown = principal_arn.clone().unwrap_or_else(|| root(tx.view()));
    let (name, value) = (known.name.to_owned(), value.to_owned());
    let shape = shape(&name, Some(&value), shown);
    tx.state.ecs.account_settings.put(AccountSetting { principal_arn, name, value });
    Ok(shape)
}

pub fn put_account_setting(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ecs::PutAccountSettingRequest,
) -> Result<ecs::PutAccountSettingResponse, EcsError> {
    let principal = principal(tx.view(), call, request.principal_arn.as_deref())?;
    let setting = Some(put(tx, principal, request.name, &request.value)?);
    Ok(ecs::PutAccountSettingResponse { setting })
}

pub fn put_account_setting_default(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::PutAccountSettingDefaultRequest,
) -> Result<ecs::PutAccountSettingDefaultResponse, EcsError> {
    let setting = Some(put(tx, None, request.name, &request.value)?);
    Ok(ecs::PutAccountSettingDefaultResponse { setting })
}

pub fn delete_account_setting(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ecs::DeleteAccountSettingRequest,
) -> Result<ecs::DeleteAccountSettingResponse, EcsError> {
    let known = find(request.name)?;
    let principal_arn = principal(tx.view(), call, request.principal_arn.as_deref())?;
    let shown = principal_arn.clone().unwrap_or_else(|| root(tx.view()));
    tx.state.ecs.account_settings.remove(&AccountSettingKey { principal_arn, name: known.name.to_owned() });
    Ok(ecs::DeleteAccountSettingResponse { setting: Some(shape(known.name, None, shown)) })
}

pub fn list_account_settings(
    view: View<'_>,
    call: &Call,
    request: ecs::ListAccountSettingsRequest,
) -> Result<ecs::ListAccountSettingsResponse, EcsError> {
    let principal_arn = principal(view, call, request.principal_arn.as_deref())?;
    let shown = principal_arn.clone().unwrap_or_else(|| root(view));
    let effective_only = request.effective_settings.unwrap_or(false);
    let page = Page::read(request.next_token.as_deref(), request.max_results, SHORT_MAX, SHORT_MAX)?;
    let settings = SETTINGS.iter().filter_map(|known| {
        let value = if effective_only {
            effective(view, &shown, known.name)
        } else {
            let key = AccountSettingKey { principal_arn: principal_arn.clone(), name: known.name.to_owned() };
            view.state.ecs.account_settings.get(&key)?.value.clone()
        };
        let fits = request.name.is_none_or(|name| name.as_str() == known.name)
            && request.value.as_ref().is_none_or(|wanted| *wanted == value);
        fits.then_some((known.name, value))
    });
    let (settings, next_token) = page.cut(
        settings,
        |(name, _)| (*name).to_owned(),
        |(name, value)| shape(name, Some(&value), shown.clone()),
    );
    Ok(ecs::ListAccountSettingsResponse { settings: Some(settings), next_token })
}
