//! Tests of `manifest`.

use super::*;

fn hex(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn manifest(config_type: &str, layer_type: &str, more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{}","size":10}},"layers":[{{"mediaType":"{layer_type}","digest":"{}","size":20}}]{more}}}"#,
        hex("01"),
        hex("02")
    )
}

#[test]
fn a_manifest_gives_config_and_layers() {
    for ending in ["", "+gzip", "+zstd"] {
        let text = manifest(OCI_CONFIG, &format!("application/vnd.oci.image.layer.v1.tar{ending}"), "");
        let parsed = parse_manifest(text.as_bytes()).unwrap();
        assert_eq!((parsed.config.size, parsed.layers[0].size), (10, 20));
    }
    let text = manifest(DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip", "");
    assert!(parse_manifest(text.as_bytes()).is_ok());
}

#[test]
fn a_text_with_two_meanings_is_refused() {
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let both = manifest(OCI_CONFIG, layer, r#","manifests":[]"#);
    assert!(parse_manifest(both.as_bytes()).unwrap_err().text().contains("double meaning"));
    assert!(parse_index(both.as_bytes()).unwrap_err().text().contains("double meaning"));
    let wrong = manifest(OCI_CONFIG, layer, &format!(r#","mediaType":"{OCI_INDEX}""#));
    assert!(parse_manifest(wrong.as_bytes()).unwrap_err().text().contains("calls itself"));
    let artifact = manifest("application/vnd.unknown.config", layer, "");
    assert!(parse_manifest(artifact.as_bytes()).unwrap_err().text().contains("artifact"));
    let odd = manifest(OCI_CONFIG, "application/json", "");
    assert!(parse_manifest(odd.as_bytes()).unwrap_err().text().contains("must be a tar"));
}

#[test]
fn an_index_lists_names_platforms_and_attestations() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
        {{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1,"platform":{{"architecture":"arm","os":"linux","variant":"v7"}},"annotations":{{"org.opencontainers.image.ref.name":"app:1","x":"y"}}}},
        {{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1,"platform":{{"architecture":"unknown","os":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}},
        {{"mediaType":"application/vnd.other","digest":"{}","size":1}}]}}"#,
        hex("0a"),
        hex("0b"),
        hex("0c")
    );
    let index = parse_index(text.as_bytes()).unwrap();
    assert_eq!(index.len(), 2);
    assert_eq!(index[0].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
    assert_eq!(&*index[0].names[0], "app:1");
    assert!(!index[0].artifact && index[1].artifact);
}

#[test]
fn a_digest_is_never_a_path() {
    let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"","digest":"sha256:../../../etc/shadow","size":1}]}"#;
    assert!(parse_index(text.as_bytes()).unwrap_err().text().contains("no sha256"));
}

#[test]
fn old_schemas_are_named() {
    assert!(parse_manifest(br#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err().text().contains("schema version 1"));
}

#[test]
fn docker_manifests_may_leave_the_names_out() {
    let text = r#"[{"Config":"a.json","RepoTags":null,"Layers":["x/layer.tar","y.tar"]}]"#;
    let images = parse_docker_manifest(text.as_bytes()).unwrap();
    assert_eq!(images[0].layers.len(), 2);
    assert!(images[0].names.is_empty());
    assert!(parse_docker_manifest(b"{}").is_err());
}

#[test]
fn too_many_layers_are_refused() {
    let layers = vec!["\"x\""; LAYERS + 1].join(",");
    let text = format!(r#"[{{"Config":"a","Layers":[{layers}]}}]"#);
    assert!(parse_docker_manifest(text.as_bytes()).is_err());
}

#[test]
fn the_layout_version_is_checked() {
    assert!(check_layout(br#"{"imageLayoutVersion": "1.0.0"}"#).is_ok());
    assert!(check_layout(br#"{"imageLayoutVersion": "2.0.0"}"#).unwrap_err().text().contains("2.0.0"));
}
