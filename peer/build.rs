//! Generates the gRPC client of `orderer.AtomicBroadcast` from the message types of `grapevine-channels`, so that no
//! `protoc` is needed to build.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let deliver = Method::builder()
        .name("deliver")
        .route_name("Deliver")
        .comment("Takes signed seek requests and answers each with blocks and one status.")
        .input_type("grapevine_channels::proto::common::Envelope")
        .output_type("grapevine_channels::proto::orderer::DeliverResponse")
        .codec_path("tonic_prost::ProstCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let orderer = Service::builder()
        .name("AtomicBroadcast")
        .package("orderer")
        .comment("Fabric's ordering service, as far as a peer needs it.")
        .method(deliver)
        .build();
    Builder::new().build_server(false).compile(&[orderer]);
}
