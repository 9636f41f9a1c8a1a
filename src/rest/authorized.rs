//! On whose behalf a request is made: found out before any handler runs, and a part of the API's description.

use std::ops::Deref;

use actors::error::Error;
use actors::system::Acting;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::reply::refuse;

/// How the description calls what a request shows.
const SCHEME: &str = "key";

/// The system as the principal of a request may use it.
pub struct Authorized(pub Acting);

impl Deref for Authorized {
    type Target = Acting;

    fn deref(&self) -> &Acting {
        &self.0
    }
}

/// Of a request that was let in.
///
/// # Errors
/// `unavailable`: nobody looked at the request, which is a fault of this service.
pub fn of(request: &Request) -> Result<&Acting, Error> {
    request.data::<Acting>().ok_or_else(|| Error::unavailable("nobody is known to ask"))
}

impl<'a> ApiExtractor<'a> for Authorized {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = MetaSecurityScheme {
            ty: "http",
            description: Some(
                "An API key, or the token of a configured issuer; none as long as there is no key",
            ),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(SCHEME, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let acting = of(request).map_err(|error| poem::Error::from_response(refuse(&error)))?;
        Ok(Self(acting.clone()))
    }
}
