//! Launch templates and their versions.

use crate::call::Call;
use crate::services::ec2::errors::{Ec2Error, Limit};
use crate::services::ec2::filter::{self, Filters};
use crate::services::ec2::state::{Ec2State, LaunchData, LaunchTemplate, LaunchTemplateVersion};
use crate::services::ec2::{check, links, views};
use crate::tx::{Tx, View};
use gantry_api::ec2;
use gantry_decide::ids::LaunchTemplateId;
use gantry_decide::scaling::user_data;
use gantry_wire::{Structure, json};

/// Launch templates of a scope, and versions of one: EC2's quotas.
const TEMPLATES_MAX: usize = 5000;
const VERSIONS_MAX: usize = 10_000;
/// Versions that one call may name: EC2's limit.
const VERSIONS_NAMED_MAX: usize = 200;
/// Characters of a name and of a description: EC2's limits.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 3..=128;
const DESCRIPTION_LENGTH_MAX: usize = 255;
/// User data is sent in base64, which makes four characters of three bytes.
const USER_DATA_LENGTH_MAX: usize = user_data::LENGTH_MAX.div_ceil(3) * 4;

fn check_name(name: &str) -> Result<(), Ec2Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "().-/_".contains(c);
    if NAME_LENGTHS.contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Ec2Error::TemplateName)
}

fn read_data(given: &ec2::RequestLaunchTemplateData) -> Result<LaunchData, Ec2Error> {
    if given.user_data.as_ref().is_some_and(|data| data.expose().len() > USER_DATA_LENGTH_MAX) {
        return Err(Ec2Error::invalid("User data is limited to 16384 bytes"));
    }
    let value = serde_json::from_slice(&json::to_vec(given));
    Ok(LaunchData::new(value.map_err(|error| Ec2Error::invalid(error.to_string()))?))
}

fn check_description(text: Option<&str>) -> Result<(), Ec2Error> {
    match text.is_some_and(|text| text.chars().count() > DESCRIPTION_LENGTH_MAX) {
        true => Err(Ec2Error::invalid(format!(
            "A version description has at most {DESCRIPTION_LENGTH_MAX} characters."
        ))),
        false => Ok(()),
    }
}

/// The template that a request means by its id or its name.
fn meant<'a>(
    ec2: &'a Ec2State,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<&'a LaunchTemplate, Ec2Error> {
    match (id, name) {
        (Some(_), Some(_)) => Err(Ec2Error::InvalidCombination(
            "The parameters LaunchTemplateId and LaunchTemplateName cannot be used together.".to_owned(),
        )),
        (None, None) => Err(Ec2Error::Missing("LaunchTemplateId or LaunchTemplateName")),
        _ => links::launch_template(ec2, id, name),
    }
}

pub fn create_launch_template(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ec2::CreateLaunchTemplateRequest,
) -> Result<ec2::CreateLaunchTemplateResult, Ec2Error> {
    check_name(&request.launch_template_name)?;
    check_description(request.version_description.as_deref())?;
    let data = read_data(&request.launch_template_data)?;
    let given = request.tag_specifications.as_deref();
    let tags = check::tag_specifications(given, ec2::ResourceType::LaunchTemplate)?;
    let ec2 = tx.state.ec2.seen_mut(tx.scope);
    if let Some(known) = ec2.launch_template_named(&request.launch_template_name) {
        if request.client_token.is_some() && known.client_token == request.client_token {
            let launch_template = Some(views::launch_template(known));
            return Ok(ec2::CreateLaunchTemplateResult { launch_template, warning: None });
        }
        return Err(Ec2Error::TemplateExists);
    }
    if ec2.launch_templates.len() >= TEMPLATES_MAX {
        return Err(Ec2Error::Limit(Limit::LaunchTemplates));
    }
    check::unless_dry(request.dry_run)?;
    let template = LaunchTemplate {
        id: LaunchTemplateId::random(tx.random),
        name: request.launch_template_name,
        created_at: tx.now,
        created_by: call.caller.arn(),
        default_version: 1,
        latest_version: 1,
        tags,
        client_token: request.client_token,
    };
    ec2.launch_template_versions.put(LaunchTemplateVersion {
        template: template.id,
        number: 1,
        description: request.version_description,
        created_at: tx.now,
        created_by: call.caller.arn(),
        data,
    });
    let launch_template = Some(views::launch_template(&template));
    ec2.launch_templates.put(template);
    Ok(ec2::CreateLaunchTemplateResult { launch_template, warning: None })
}

pub fn create_launch_template_version(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ec2::CreateLaunchTemplateVersionRequest,
) -> Result<ec2::CreateLaunchTemplateVersionResult, Ec2Error> {
    check_description(request.version_description.as_deref())?;
    let mut data = read_data(&request.launch_template_data)?;
    let ec2 = &mut tx.state.ec2;
    let (id, name) = (request.launch_template_id.as_deref(), request.launch_template_name.as_deref());
    let mut template = meant(ec2, id, name)?.clone();
    if let Some(source) = request.source_version.as_deref() {
        data = links::launch_template_version(ec2, &template, source)?.data.overlaid(&data);
    }
    if ec2.versions_of(template.id).count() >= VERSIONS_MAX {
        return Err(Ec2Error::Limit(Limit::LaunchTemplateVersions));
    }
    check::unless_dry(request.dry_run)?;
    template.latest_version += 1;
    let version = LaunchTemplateVersion {
        template: template.id,
        number: template.latest_version,
        description: request.version_description,
        created_at: tx.now,
        created_by: call.caller.arn(),
        data,
    };
    let shown = show_version(&template, &version)?;
    ec2.launch_templates.put(template);
    ec2.launch_template_versions.put(version);
    Ok(ec2::CreateLaunchTemplateVersionResult { launch_template_version: Some(shown), warning: None })
}

/// A version as its response shape. Its data were read from a request, whose members are spelled alike.
fn show_version(
    template: &LaunchTemplate,
    version: &LaunchTemplateVersion,
) -> Result<ec2::LaunchTemplateVersion, Ec2Error> {
    let text = version.data.value().to_string();
    let data: ec2::ResponseLaunchTemplateData = read_shape(&text)?;
    Ok(views::launch_template_version(template, version, data))
}

fn read_shape<T: Structure + Default>(text: &str) -> Result<T, Ec2Error> {
    json::from_slice(text.as_bytes()).map_err(|error| Ec2Error::invalid(error.message))
}

pub fn describe_launch_templates(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeLaunchTemplatesRequest,
) -> Result<ec2::DescribeLaunchTemplatesResult, Ec2Error> {
    let ec2 = &view.state.ec2;
    let mut wanted = Vec::new();
    for id in request.launch_template_ids.iter().flatten() {
        wanted.push(links::launch_template(ec2, Some(id), None)?);
    }
    for name in request.launch_template_names.iter().flatten() {
        wanted.push(links::launch_template(ec2, None, Some(name))?);
    }
    // What was found is there: its error is never told.
    let wanted: Vec<_> =
        wanted.into_iter().map(|template| (template.id.to_string(), Ec2Error::TemplateName)).collect();
    let filters = Filters::read::<LaunchTemplate>(request.filters.as_deref())?;
    let page = filter::page(request.next_token.as_deref(), request.max_results, !wanted.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let all = ec2.launch_templates.values().map(AsRef::as_ref);
    let (launch_templates, next_token) =
        filter::describe(view.scope, all, &wanted, &filters, &page, views::launch_template)?;
    Ok(ec2::DescribeLaunchTemplatesResult { launch_templates, next_token })
}

pub fn describe_launch_template_versions(
    view: View<'_>,
    _call: &Call,
    request: ec2::DescribeLaunchTemplateVersionsRequest,
) -> Result<ec2::DescribeLaunchTemplateVersionsResult, Ec2Error> {
    let ec2 = &view.state.ec2;
    let named = request.versions.as_deref().unwrap_or_default();
    if named.len() > VERSIONS_NAMED_MAX {
        return Err(Ec2Error::invalid(format!("At most {VERSIONS_NAMED_MAX} versions can be named.")));
    }
    if request.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
        return Err(Ec2Error::unsupported("Gantry does not filter versions of launch templates."));
    }
    let page = filter::page(request.next_token.as_deref(), request.max_results, !named.is_empty())?;
    check::unless_dry(request.dry_run)?;
    let (id, name) = (request.launch_template_id.as_deref(), request.launch_template_name.as_deref());
    let mut found = Vec::new();
    if id.is_none() && name.is_none() {
        // Of all templates only these can be meant.
        if named.is_empty()
            || !named.iter().all(|version| ["$Latest", "$Default"].contains(&version.as_str()))
        {
            return Err(Ec2Error::Missing("LaunchTemplateId or LaunchTemplateName"));
        }
        for template in ec2.launch_templates.values() {
            for version in named {
                found.push((template.as_ref(), links::launch_template_version(ec2, template, version)?));
            }
        }
    } else {
        let template = meant(ec2, id, name)?;
        if named.is_empty() {
            let bound = |text: Option<&str>| text.map(version_number).transpose();
            let least = bound(request.min_version.as_deref())?.unwrap_or(0);
            let most = bound(request.max_version.as_deref())?.unwrap_or(u64::MAX);
            let within = |version: &&LaunchTemplateVersion| (least..=most).contains(&version.number);
            // The newest first, as EC2 does.
            let mut versions: Vec<_> = ec2.versions_of(template.id).filter(within).collect();
            versions.reverse();
            found.extend(versions.into_iter().map(|version| (template, version)));
        }
        for version in named {
            found.push((template, links::launch_template_version(ec2, template, version)?));
        }
    }
    found.dedup_by_key(|(template, version)| (template.id, version.number));
    // In the order of the tokens: those of one template fall.
    let place = |(template, version): &(&LaunchTemplate, &LaunchTemplateVersion)| {
        format!("{} {:020}", template.id, u64::MAX - version.number)
    };
    if named.is_empty() {
        found.sort_by_key(place);
    }
    let (shown, next_token) =
        page.cut(found.into_iter(), place, |(template, version)| show_version(template, version));
    let shown = shown.into_iter().collect::<Result<_, _>>()?;
    Ok(ec2::DescribeLaunchTemplateVersionsResult { launch_template_versions: Some(shown), next_token })
}

fn version_number(text: &str) -> Result<u64, Ec2Error> {
    text.parse().map_err(|_| Ec2Error::value(text, "version", "It must be a number."))
}

pub fn modify_launch_template(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::ModifyLaunchTemplateRequest,
) -> Result<ec2::ModifyLaunchTemplateResult, Ec2Error> {
    let ec2 = &mut tx.state.ec2;
    let (id, name) = (request.launch_template_id.as_deref(), request.launch_template_name.as_deref());
    let mut template = meant(ec2, id, name)?.clone();
    let wanted = request.default_version.as_deref().ok_or(Ec2Error::Missing("DefaultVersion"))?;
    template.default_version = links::launch_template_version(ec2, &template, wanted)?.number;
    check::unless_dry(request.dry_run)?;
    let launch_template = Some(views::launch_template(&template));
    ec2.launch_templates.put(template);
    Ok(ec2::ModifyLaunchTemplateResult { launch_template })
}

pub fn delete_launch_template(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteLaunchTemplateRequest,
) -> Result<ec2::DeleteLaunchTemplateResult, Ec2Error> {
    let ec2 = &mut tx.state.ec2;
    let (id, name) = (request.launch_template_id.as_deref(), request.launch_template_name.as_deref());
    let template = meant(ec2, id, name)?.clone();
    check::unless_dry(request.dry_run)?;
    let versions: Vec<_> = ec2.versions_of(template.id).map(|version| version.number).collect();
    for number in versions {
        ec2.launch_template_versions.remove(&(template.id, number));
    }
    ec2.launch_templates.remove(&template.id);
    Ok(ec2::DeleteLaunchTemplateResult { launch_template: Some(views::launch_template(&template)) })
}

/// What can be deleted is; each of the others is told why not.
pub fn delete_launch_template_versions(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ec2::DeleteLaunchTemplateVersionsRequest,
) -> Result<ec2::DeleteLaunchTemplateVersionsResult, Ec2Error> {
    let ec2 = &mut tx.state.ec2;
    let (id, name) = (request.launch_template_id.as_deref(), request.launch_template_name.as_deref());
    let template = meant(ec2, id, name)?.clone();
    if request.versions.len() > VERSIONS_NAMED_MAX {
        return Err(Ec2Error::invalid(format!(
            "At most {VERSIONS_NAMED_MAX} versions can be deleted at once."
        )));
    }
    check::unless_dry(request.dry_run)?;
    let (mut deleted, mut refused) = (Vec::new(), Vec::new());
    for text in &request.versions {
        let number = version_number(text)?;
        let refuse = |code, message: &str| ec2::DeleteLaunchTemplateVersionsResponseErrorItem {
            launch_template_id: Some(template.id.to_string()),
            launch_template_name: Some(template.name.clone()),
            version_number: i64::try_from(number).ok(),
            response_error: Some(ec2::ResponseError { code: Some(code), message: Some(message.to_owned()) }),
        };
        if number == template.default_version {
            let code = ec2::LaunchTemplateErrorCode::UnexpectedError;
            refused.push(refuse(code, "The default version of a launch template cannot be deleted."));
        } else if ec2.launch_template_versions.remove(&(template.id, number)).is_none() {
            let code = ec2::LaunchTemplateErrorCode::LaunchTemplateVersionDoesNotExist;
            refused.push(refuse(code, "The specified launch template version does not exist."));
        } else {
            deleted.push(ec2::DeleteLaunchTemplateVersionsResponseSuccessItem {
                launch_template_id: Some(template.id.to_string()),
                launch_template_name: Some(template.name.clone()),
                version_number: i64::try_from(number).ok(),
            });
        }
    }
    Ok(ec2::DeleteLaunchTemplateVersionsResult {
        successfully_deleted_launch_template_versions: Some(deleted),
        unsuccessfully_deleted_launch_template_versions: Some(refused),
    })
}
