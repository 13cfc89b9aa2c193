//! A stranger with a tool like grpcurl: it knows the port, asks what there is, and builds messages from the answer.

use forebay_testkit::{broker::BrokerKind, wait};
use futures::{StreamExt, stream};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use crate::stack::{PATIENCE, Stack, on_every_broker};

on_every_broker! {
    a_stranger_finds_what_there_is_and_uses_it
}

const SERVICES: [&str; 7] = [
    "forebay.v1.LimitService",
    "forebay.v1.QueueService",
    "forebay.v1.ScheduleService",
    "forebay.v1.TaskService",
    "forebay.v1.WorkerService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
];

/// Messages whose type is known at run time only.
#[derive(Clone)]
struct Dynamic {
    answer: MessageDescriptor,
}

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).unwrap();
        Ok(())
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let read = DynamicMessage::decode(self.answer.clone(), buffer);
        read.map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

struct Stranger {
    channel: Channel,
    services: Vec<String>,
    pool: DescriptorPool,
}

/// One question to the server's reflection.
async fn asked(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
    answer.message_response.unwrap()
}

async fn files(channel: &Channel, question: MessageRequest) -> Vec<FileDescriptorProto> {
    let MessageResponse::FileDescriptorResponse(found) = asked(channel, question).await else {
        panic!("no files");
    };
    let files = found.file_descriptor_proto.iter();
    files
        .map(|bytes| FileDescriptorProto::decode(&bytes[..]).unwrap())
        .collect()
}

impl Stranger {
    /// Learns all that the server tells of itself.
    async fn meets(grpc: &str) -> Self {
        let channel = Endpoint::from_shared(grpc.to_owned()).unwrap();
        let channel = channel.connect().await.unwrap();
        let list = asked(&channel, MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(list) = list else {
            panic!("{list:?}");
        };
        let mut services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        services.sort();
        let mut known: Vec<FileDescriptorProto> = Vec::new();
        let mut wanted: Vec<MessageRequest> = services
            .iter()
            .map(|service| MessageRequest::FileContainingSymbol(service.clone()))
            .collect();
        while let Some(question) = wanted.pop() {
            for file in files(&channel, question).await {
                if known.iter().all(|other| other.name != file.name) {
                    let imports = file.dependency.iter().cloned();
                    wanted.extend(imports.map(MessageRequest::FileByFilename));
                    known.push(file);
                }
            }
        }
        let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: known });
        Self {
            channel,
            services,
            pool: pool.unwrap(),
        }
    }

    fn method(&self, service: &str, name: &str) -> MethodDescriptor {
        let service = self.pool.get_service_by_name(service).unwrap();
        service.methods().find(|method| method.name() == name).unwrap()
    }

    /// Calls a method with a message that is written as text.
    async fn call(&self, method: &MethodDescriptor, text: &str) -> Result<DynamicMessage, Status> {
        let message = DynamicMessage::parse_text_format(method.input(), text).unwrap();
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let codec = Dynamic {
            answer: method.output(),
        };
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let answer = client.unary(Request::new(message), path.parse().unwrap(), codec);
        answer.await.map(tonic::Response::into_inner)
    }

    fn succeeded(&self) -> Value {
        let states = self.pool.get_enum_by_name("forebay.v1.TaskState").unwrap();
        let succeeded = states.get_value_by_name("TASK_STATE_SUCCEEDED").unwrap();
        Value::EnumNumber(succeeded.number())
    }
}

fn field(message: &DynamicMessage, path: &str) -> Value {
    let mut value = Value::Message(message.clone());
    for name in path.split('.') {
        let inner = value.as_message().unwrap();
        value = inner.get_field_by_name(name).unwrap().into_owned();
    }
    value
}

async fn a_stranger_finds_what_there_is_and_uses_it(kind: BrokerKind) {
    let stack = Stack::on(kind).await;
    let api = stack.api().await;
    let _worker = stack.worker(&["--builtin-handlers"]).await;
    let stranger = Stranger::meets(&api.grpc).await;
    assert_eq!(stranger.services, SERVICES);

    let submit = stranger.method("forebay.v1.TaskService", "SubmitTask");
    let text = r#"kind: "echo" payload: "{\"hello\":\"world\"}" tags: ["a", "b"] idempotency_key: "smoke""#;
    let submitted = wait::until("it to be accepted", PATIENCE, || async {
        let answer = stranger.call(&submit, text).await;
        // A machine that is busy may be slow, and the key makes it harmless to ask again.
        answer.map(Some)
    })
    .await;
    let id = field(&submitted, "task.id");
    let get = stranger.method("forebay.v1.TaskService", "GetTask");
    let done = wait::until("it to be done", PATIENCE, || async {
        let answer = stranger.call(&get, &format!("id: {id}")).await?;
        let is_done = field(&answer, "task.state") == stranger.succeeded();
        Ok::<_, Status>(is_done.then_some(answer))
    })
    .await;
    assert_eq!(field(&done, "task.id"), id);
    assert_eq!(
        field(&done, "task.result"),
        Value::Bytes(r#"{"hello":"world"}"#.into())
    );
    every_method_answers(&stranger).await;
}

/// Each takes a message that says nothing: it answers, or says by our codes what is missing.
async fn every_method_answers(stranger: &Stranger) {
    let ours = SERVICES.iter().filter(|name| name.starts_with("forebay."));
    let mut called = 0;
    for service in ours {
        let service = stranger.pool.get_service_by_name(service).unwrap();
        for method in service.methods() {
            if method.is_client_streaming() || method.is_server_streaming() {
                continue;
            }
            called += 1;
            let Err(status) = stranger.call(&method, "").await else {
                continue;
            };
            let refused = [Code::InvalidArgument, Code::NotFound, Code::Unavailable];
            assert!(
                refused.contains(&status.code()),
                "{}: {status:?}",
                method.full_name()
            );
            let details = status.get_error_details();
            let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
            assert_eq!(info.domain, "forebay", "{}", method.full_name());
        }
    }
    assert!(called >= 14, "{called} methods");
}
