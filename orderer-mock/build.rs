//! Generates the gRPC client and server of `orderer.AtomicBroadcast` from the message types of `grapevine-channels`, so that no `protoc`
//! is needed to build.

use tonic_build::manual::{Builder, Method, Service};

const CODEC: &str = "tonic_prost::ProstCodec";

fn main() {
    let broadcast = Method::builder()
        .name("broadcast")
        .route_name("Broadcast")
        .comment("Takes envelopes and answers each, in order.")
        .input_type("grapevine_channels::proto::common::Envelope")
        .output_type("grapevine_channels::proto::orderer::BroadcastResponse")
        .codec_path(CODEC)
        .client_streaming()
        .server_streaming()
        .build();
    let deliver = Method::builder()
        .name("deliver")
        .route_name("Deliver")
        .comment("Takes signed seek requests and answers each with blocks and one status.")
        .input_type("grapevine_channels::proto::common::Envelope")
        .output_type("grapevine_channels::proto::orderer::DeliverResponse")
        .codec_path(CODEC)
        .client_streaming()
        .server_streaming()
        .build();
    let service = Service::builder()
        .name("AtomicBroadcast")
        .package("orderer")
        .comment("Fabric's ordering service.")
        .method(broadcast)
        .method(deliver)
        .build();
    Builder::new().compile(&[service]);
}
