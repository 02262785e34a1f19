//! The parameters of a request, checked before the endpoint sees them.
//!
//! An endpoint lists its parameters in [`Asks`] and takes [`Asked`]; the same list goes into the OpenAPI document by
//! `params(Asked<…>)`. What nobody asks for is refused, as is what comes twice.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter as Documented, ParameterIn};

use super::ApiError;
use super::parameter::{Kind, Parameter, whole};

/// Points of a series at most.
pub const MAX_POINTS: u64 = 1_000;

/// What an endpoint can be asked.
pub trait Asks: Send + Sync {
    /// Parameters of its path.
    const PATH: &'static [&'static Parameter] = &[];
    /// Parameters of its query.
    const QUERY: &'static [&'static Parameter] = &[];
}

/// An endpoint without parameters.
pub struct Nothing;

impl Asks for Nothing {}

/// The parameters of a request to an endpoint that can be asked `A`: each is what it may be, none is missing.
pub struct Asked<A> {
    values: BTreeMap<&'static str, String>,
    asks: PhantomData<A>,
}

impl<A: Asks> Asked<A> {
    fn check(path: Vec<(String, String)>, query: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut asked = Self {
            values: BTreeMap::new(),
            asks: PhantomData,
        };
        asked.take(A::PATH, path)?;
        asked.take(A::QUERY, query)?;
        let required = A::QUERY.iter().filter(|parameter| parameter.required);
        for parameter in required {
            if !asked.values.contains_key(parameter.name) {
                let message = format!("{} is missing", parameter.name);
                return Err(ApiError::BadRequest(message));
            }
        }
        Ok(asked)
    }

    fn take(
        &mut self,
        known: &[&'static Parameter],
        pairs: Vec<(String, String)>,
    ) -> Result<(), ApiError> {
        for (name, value) in pairs {
            let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                return Err(ApiError::BadRequest(unknown(&name, known)));
            };
            if self.values.contains_key(parameter.name) {
                return Err(ApiError::BadRequest(format!("{name} is given twice")));
            }
            parameter.check(&value)?;
            self.values.insert(parameter.name, value);
        }
        Ok(())
    }

    /// A text; empty when it is absent.
    pub fn text(&self, parameter: &Parameter) -> &str {
        self.values.get(parameter.name).map_or("", String::as_str)
    }

    /// A whole number, or its default.
    pub fn whole(&self, parameter: &Parameter) -> Option<u64> {
        let default = match parameter.kind {
            Kind::Whole { default, .. } => default,
            _ => None,
        };
        let given = self.values.get(parameter.name);
        given.and_then(|text| whole(text)).or(default)
    }
}

fn unknown(name: &str, known: &[&Parameter]) -> String {
    let known: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
    match known.as_slice() {
        [] => format!("unknown parameter {name:?} (there are none here)"),
        known => format!("unknown parameter {name:?} (allowed: {})", known.join(", ")),
    }
}

impl<S: Send + Sync, A: Asks> FromRequestParts<S> for Asked<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = match A::PATH {
            [] => Vec::new(),
            _ => {
                let path = RawPathParams::from_request_parts(parts, state).await;
                let path = path.map_err(|error| ApiError::BadRequest(error.body_text()))?;
                let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                path.iter().map(owned).collect()
            }
        };
        let query = Query::try_from_uri(&parts.uri);
        let Query(query) =
            query.map_err(|error: QueryRejection| ApiError::BadRequest(error.body_text()))?;
        Self::check(path, query)
    }
}

impl<A: Asks> IntoParams for Asked<A> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Documented> {
        let path = A::PATH.iter().map(|one| one.documented(ParameterIn::Path));
        let query = A::QUERY
            .iter()
            .map(|one| one.documented(ParameterIn::Query));
        path.chain(query).collect()
    }
}
