//! OpenTelemetry's own variables: what was asked for, and what of it cannot be had.
//!
//! The SDK reads most of them itself and says nothing of a value that it does not know. Here the
//! wrong ones are found, so that nobody looks for a day for traces that a spelling mistake ate.

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;

/// Whether traces leave the process, and what is wrong with the variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) export: bool,
    pub(super) complaints: Vec<String>,
}

/// Where variables come from: a function, so that a test needs no process of its own.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process. Empty is unset, as OpenTelemetry has it.
pub(super) fn of_process(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

impl Wishes {
    /// Traces are exported if there is somewhere to send them to, or if `OTEL_TRACES_EXPORTER`
    /// says `otlp`: then to the usual place, `http://localhost:4318`. OpenTelemetry would send
    /// there by default, which in a program that was never set up is a warning a minute.
    pub(super) fn of(variable: Variables<'_>) -> Self {
        let mut complaints = Vec::new();
        let is_disabled =
            variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let has_endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))
            .is_some();
        let is_wanted = match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None => has_endpoint,
            Some("otlp") => true,
            Some("none") => false,
            Some(other) => {
                complaints.push(format!(
                    "OTEL_TRACES_EXPORTER={other} is not known here: otlp or none; no trace is exported"
                ));
                false
            }
        };
        let export = is_wanted && !is_disabled;
        if export {
            complaints.extend(complaint_about_protocol(variable));
            complaints.extend(complaint_about_sampler(variable));
        }
        Self { export, complaints }
    }
}

fn complaint_about_protocol(variable: Variables<'_>) -> Option<String> {
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"))?;
    (protocol != "http/protobuf").then(|| {
        format!(
            "the OTLP protocol {protocol} is not built in: http/protobuf is used \
             (a collector listens for it on port 4318, and not on 4317)"
        )
    })
}

fn complaint_about_sampler(variable: Variables<'_>) -> Option<String> {
    let sampler = variable("OTEL_TRACES_SAMPLER")?;
    match sampler.as_str() {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => None,
        "traceidratio" | "parentbased_traceidratio" => {
            let ratio = variable("OTEL_TRACES_SAMPLER_ARG");
            let parsed = ratio.as_deref().and_then(|ratio| ratio.parse::<f64>().ok());
            (!parsed.is_some_and(|ratio| (0.0..=1.0).contains(&ratio))).then(|| {
                format!(
                    "OTEL_TRACES_SAMPLER={sampler} needs OTEL_TRACES_SAMPLER_ARG between 0 and 1, \
                     and not {ratio:?}"
                )
            })
        }
        other => Some(format!(
            "OTEL_TRACES_SAMPLER={other} is not known here: always_on, always_off, traceidratio, \
             each also as parentbased_…; parentbased_always_on is used"
        )),
    }
}

/// The name under which the service is known: `OTEL_SERVICE_NAME`, else `service.name` of
/// `OTEL_RESOURCE_ATTRIBUTES`, else what the program calls itself.
pub(super) fn service_name(given: &str, variable: Variables<'_>) -> String {
    let named = || {
        let attributes = variable("OTEL_RESOURCE_ATTRIBUTES")?;
        let name = attributes
            .split(',')
            .find_map(|pair| pair.trim().strip_prefix("service.name="))?;
        Some(name.trim().to_owned())
    };
    variable("OTEL_SERVICE_NAME")
        .or_else(named)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| given.to_owned())
}

/// Who sends: the name, `OTEL_RESOURCE_ATTRIBUTES`, and an id for this process if they have none.
pub(super) fn resource(service: &str) -> Resource {
    let id = Key::from_static_str("service.instance.id");
    let given = Resource::builder().build();
    let mut resource = Resource::builder().with_service_name(service.to_owned());
    if given.get(&id).is_none() {
        resource = resource.with_attribute(KeyValue::new(id, uuid::Uuid::new_v4().to_string()));
    }
    resource.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(variables: &[(&str, &str)]) -> (bool, String) {
        let wishes = Wishes::of(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        (wishes.export, wishes.complaints.join("; "))
    }

    #[test]
    fn traces_leave_only_where_somebody_asked_for_it() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(wishes(&[]), (false, String::new()));
        assert_eq!(wishes(&[endpoint]), (true, String::new()));
        assert!(wishes(&[("OTEL_TRACES_EXPORTER", "otlp")]).0);
        assert!(!wishes(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).0);
        assert!(!wishes(&[endpoint, ("OTEL_SDK_DISABLED", "True")]).0);
        let (export, complaint) = wishes(&[endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")]);
        assert!(!export && complaint.contains("zipkin"), "{complaint}");
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, value, said) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER", "traceidratio", "between 0 and 1"),
        ] {
            let (export, complaint) = wishes(&[endpoint, (name, value)]);
            assert!(export && complaint.contains(said), "{complaint}");
        }
        let ratio = |ratio| {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            wishes(&[endpoint, sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio)]).1
        };
        assert_eq!(ratio("0.25"), "");
        assert!(ratio("25").contains("25"));
    }

    #[test]
    fn the_operator_names_the_service_before_the_program_does() {
        let name = |variables: &[(&str, &str)]| {
            service_name("shop", &|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=till");
        assert_eq!(name(&[]), "shop");
        assert_eq!(name(&[attributes]), "till");
        assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "desk")]), "desk");
    }
}
