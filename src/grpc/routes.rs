//! From a path to the service that answers it.
//!
//! By hand and not by a router: there are five services, every call passes
//! here, and the batch call alone may be larger than the others.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service as TowerService, StdError},
    server::NamedService,
};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};

use super::{admin::Admin, retry::Retry};
use crate::{
    proto::{admin_service_server::AdminServiceServer, retry_service_server::RetryServiceServer},
    store::Store,
};

/// Largest request and answer that is not a batch, in bytes.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Largest batch and largest answer, in bytes.
pub const BATCH_MAX: usize = 1024 * 1024;

/// Every service of the port. Cheap to clone: each call has a clone of its own.
pub struct Routes<S: Store>(Arc<Services<S>>);

struct Services<S: Store> {
    retry: RetryServiceServer<Retry<S>>,
    batch: RetryServiceServer<Retry<S>>,
    admin: AdminServiceServer<Admin<S>>,
    health: HealthServer<HealthService>,
    /// Reflection, version 1 and the one before, which many tools still ask.
    reflection: Option<tonic::service::Routes>,
}

impl<S: Store> Clone for Routes<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store> Routes<S> {
    /// The services, with reflection or without.
    ///
    /// # Errors
    /// The compiled contract cannot be read for reflection.
    pub fn new(
        retry: Retry<S>,
        admin: Admin<S>,
        health: HealthServer<HealthService>,
        reflection: bool,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let retry = Arc::new(retry);
        let served = |max| {
            RetryServiceServer::from_arc(Arc::clone(&retry))
                .max_decoding_message_size(max)
                .max_encoding_message_size(BATCH_MAX)
        };
        Ok(Self(Arc::new(Services {
            batch: served(BATCH_MAX),
            retry: served(MESSAGE_MAX),
            admin: AdminServiceServer::new(admin)
                .max_decoding_message_size(BATCH_MAX)
                .max_encoding_message_size(4 * BATCH_MAX),
            health: health.max_decoding_message_size(MESSAGE_MAX),
            reflection: if reflection { Some(self::reflection()?) } else { None },
        })))
    }
}

fn reflection() -> Result<tonic::service::Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(tonic::service::Routes::new(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

impl<S: Store, B> TowerService<Request<B>> for Routes<S>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        const BATCH: &str = "/reprise.v1.RetryService/BatchReportAttempts";
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map_or("", |(service, _)| service);
        let services = &self.0;
        if path == BATCH {
            return services.batch.clone().call(request);
        }
        if service == <RetryServiceServer<Retry<S>> as NamedService>::NAME {
            return services.retry.clone().call(request);
        }
        if service == <AdminServiceServer<Admin<S>> as NamedService>::NAME {
            return services.admin.clone().call(request);
        }
        if service == <HealthServer<HealthService> as NamedService>::NAME {
            return services.health.clone().call(request);
        }
        match &services.reflection {
            Some(reflection) if service.starts_with("grpc.reflection.") => {
                Box::pin(reflection.clone().call(request))
            }
            _ => Box::pin(async {
                Ok(tonic::Status::unimplemented("there is no such service here").into_http())
            }),
        }
    }
}
