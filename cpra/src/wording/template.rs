//! People's templates: a file's text, run on the data of one notice, within bounds.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value};

use super::{Data, cut, line};
use crate::domain::Color;
use crate::units::limits::{EVIDENCE_MAX, TEMPLATE_FUEL, TEMPLATE_MAX};

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    // Instructions and memory alike.
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // Whoever sends it escapes it as it must be there.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // A label that one monitor has and the next one has not is nothing there, and no fault. Names that never are
    // anything are found when the file is read.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment
}

/// # Errors
/// What is wrong with it, in a line.
pub(super) fn render(template: &str, data: &Data) -> Result<String, String> {
    environment()
        .template_from_str(template)
        .and_then(|parsed| parsed.render(Value::from(Serde(data))))
        .map_err(|error| words(&error))
}

/// Whether a template can be used: it is well-formed, names only what there is, and runs on notices of every color.
///
/// # Errors
/// What is wrong with it, in a line, with the line of the template.
pub fn check(template: &str) -> Result<(), String> {
    if template.len() > TEMPLATE_MAX {
        return Err(format!("it is longer than {TEMPLATE_MAX} bytes"));
    }
    let environment = environment();
    let parsed = environment.template_from_str(template).map_err(|error| words(&error))?;
    let known = names();
    let mut unknown: Vec<String> = parsed.undeclared_variables(false).into_iter().collect();
    unknown.retain(|name| !known.contains(name) && !environment.globals().any(|(global, _)| global == name));
    unknown.sort();
    if let Some(name) = unknown.first() {
        return Err(format!("there is no \"{}\"; there are {}", line(name), known.join(", ")));
    }
    for data in Color::ALL.into_iter().flat_map(Data::samples) {
        parsed.render(Value::from(Serde(&data))).map_err(|error| words(&error))?;
    }
    Ok(())
}

/// What a template may name.
fn names() -> Vec<String> {
    let [full, _] = Data::samples(Color::Red);
    let value = Value::from(Serde(&full));
    value.try_iter().into_iter().flatten().map(|name| name.to_string()).collect()
}

/// `line 3: unknown filter: filter shout is unknown`. It may quote the template, which is a person's own.
fn words(error: &Error) -> String {
    let place = error.line().map_or_else(String::new, |number| format!("line {number}: "));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    cut(line(&format!("{place}{}{detail}", error.kind())), EVIDENCE_MAX)
}
