//! Every layout of the same small model, and what each of them may and may not contain.

mod writers;

use rwkvc_frontend::checkpoint::CheckpointFormat;
use rwkvc_frontend::model::Model;
use writers::*;

/// Shuffles the axes of `head.weight` in its storage, so that only strides bring them back.
fn strided(items: &[Item]) -> (Vec<Strided>, Storages) {
    let (mut views, mut storages) = contiguous(items);
    let at = views.iter().position(|v| v.name == "head.weight").unwrap();
    let (rows, columns) = (views[at].shape[0] as usize, views[at].shape[1] as usize);
    let bytes = storages[at].1.clone();
    let element = |r: usize, c: usize| bytes[4 * (r * columns + c)..][..4].to_vec();
    storages[at].1 = (0..columns)
        .flat_map(|c| (0..rows).flat_map(move |r| element(r, c)))
        .collect();
    views[at].strides = vec![1, rows as i64];
    (views, storages)
}

/// All tensors in one storage, one after the other.
fn shared(items: &[Item]) -> (Vec<Strided>, Storages) {
    let (mut views, storages) = contiguous(items);
    let total: i64 = views.iter().map(|v| v.len).sum();
    let mut offset = 0;
    for view in &mut views {
        offset += std::mem::replace(&mut view.offset, offset) + view.len;
        (view.key, view.len) = ("all".into(), total);
    }
    (
        views,
        vec![(
            "all".into(),
            storages.into_iter().flat_map(|(_, bytes)| bytes).collect(),
        )],
    )
}

#[test]
fn all_layouts_hold_the_same_model() {
    let items = items();
    let expected = numbers(&open(&safetensors(&items)).unwrap());
    let (strided, shared) = (strided(&items), shared(&items));
    let files = [
        (CheckpointFormat::Safetensors, safetensors(&items)),
        (CheckpointFormat::HuggingFace, safetensors(&hugging_face(&items))),
        (CheckpointFormat::Pth, pth(&items)),
        (CheckpointFormat::PthLegacy, legacy(&items)),
        (CheckpointFormat::Pth, pth_with(&strided.0, &strided.1, "little")),
        (
            CheckpointFormat::PthLegacy,
            legacy_with(&strided.0, &strided.1, true),
        ),
        (CheckpointFormat::Pth, pth_with(&shared.0, &shared.1, "little")),
        (
            CheckpointFormat::PthLegacy,
            legacy_with(&shared.0, &shared.1, true),
        ),
    ];
    for (i, (format, file)) in files.iter().enumerate() {
        let model = open(file).unwrap_or_else(|e| panic!("file {i}: {e}"));
        assert_eq!(model.format(), *format, "file {i}");
        assert!(numbers(&model) == expected, "file {i} holds other numbers");
    }
}

/// Writes the Hugging Face layout as two shards and their index.
fn shards(folder: &Folder, items: &[Item]) {
    let hf = hugging_face(items);
    let (first, second) = hf.split_at(hf.len() / 2);
    folder.write("model-00001-of-00002.safetensors", safetensors(first));
    folder.write("model-00002-of-00002.safetensors", safetensors(second));
    let entry = |i: &Item, n: usize| format!(r#""{}":"model-0000{n}-of-00002.safetensors""#, i.name);
    let map: Vec<String> = first
        .iter()
        .map(|i| entry(i, 1))
        .chain(second.iter().map(|i| entry(i, 2)))
        .collect();
    folder.write(
        "model.safetensors.index.json",
        format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, map.join(",")),
    );
}

fn folder_error(folder: &Folder) -> String {
    let message = Model::open(folder.path()).unwrap_err().to_string();
    message.replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn shards_are_joined() {
    let (folder, items) = (Folder::new(), items());
    shards(&folder, &items);
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(model.format(), CheckpointFormat::HuggingFace);
    assert!(numbers(&model) == numbers(&open(&safetensors(&items)).unwrap()));
    // Without config.json the constants are those of its defaults.
    assert_eq!(model.config().layer_norm_eps, 1e-5);
    assert!((model.config().group_norm_eps - 4e-5).abs() < 1e-12);
    // One tensor in both shards.
    let hf = hugging_face(&items);
    folder.write(
        "model-00002-of-00002.safetensors",
        safetensors(&hf[hf.len() / 2 - 1..]),
    );
    assert!(
        folder_error(&folder).starts_with("there are two tensors named `"),
        "{}",
        folder_error(&folder)
    );
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(folder_error(&folder).starts_with("`DIR/model-00002-of-00002.safetensors`: "));
}

#[test]
fn shards_lie_in_the_folder() {
    for name in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b",
        "..",
        ".hidden",
        "a\\\\b",
    ] {
        let folder = Folder::new();
        folder.write(
            "model.safetensors.index.json",
            format!(r#"{{"weight_map":{{"x":"{name}"}}}}"#),
        );
        let name = name.replace("\\\\", "\\");
        let expected = format!("`DIR/model.safetensors.index.json`: shard `{name}` is not a file name");
        assert_eq!(folder_error(&folder), expected);
    }
    let folder = Folder::new();
    folder.write("model.safetensors.index.json", r#"{"weight_map":{"x":""}}"#);
    assert!(folder_error(&folder).ends_with("it is not a regular file"));
    folder.write("model.safetensors.index.json", r#"{"weight_map":7}"#);
    assert!(folder_error(&folder).contains("not the expected JSON"));
    let expected = "`DIR`: a folder without model.safetensors or model.safetensors.index.json";
    assert_eq!(folder_error(&Folder::new()), expected);
}

#[test]
fn the_configuration_gives_the_constants() {
    let folder = Folder::new();
    folder.write("model.safetensors", safetensors(&hugging_face(&items())));
    folder.write(
        "config.json",
        r#"{"model_type":"rwkv7","head_dim":4,"norm_eps":0.001,"hidden_act":"sqrelu"}"#,
    );
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(
        (model.config().layer_norm_eps, model.config().group_norm_eps),
        (0.001, 0.004)
    );
    let refused = [
        (
            r#"{"model_type":"llama"}"#,
            "model_type is `llama`, expected `rwkv7`",
        ),
        (
            r#"{"hidden_act":"silu"}"#,
            "hidden_act is `silu`, expected `sqrelu`",
        ),
        (
            r#"{"head_dim":64}"#,
            "head_dim is 64, but the heads of `attn.r_k` have 4 channels",
        ),
        (
            r#"{"norm_eps":-1}"#,
            "norm_eps is -1, expected a number between 0 and 1",
        ),
    ];
    for (config, reason) in refused {
        folder.write("config.json", config);
        assert_eq!(folder_error(&folder), format!("`DIR/config.json`: {reason}"));
    }
}

#[test]
fn older_exports_stack_the_mixes() {
    let mut hf = hugging_face(&items());
    for layer in 0..2 {
        let mut stacked = Item::zeros(&format!("model.layers.{layer}.attn.x_x"), &[6, 8]);
        stacked.bytes.clear();
        for letter in ["r", "w", "k", "v", "a", "g"] {
            let name = format!("model.layers.{layer}.attn.x_{letter}");
            let at = hf.iter().position(|i| i.name == name).unwrap();
            stacked.bytes.extend(hf.remove(at).bytes);
        }
        hf.push(stacked);
    }
    let model = open(&safetensors(&hf)).unwrap();
    assert!(numbers(&model) == numbers(&open(&safetensors(&items())).unwrap()));
}

#[test]
fn empty_matrices_take_no_time() {
    let mut hf = hugging_face(&items());
    let name = "model.layers.0.attn.w_lora.lora.0.weight";
    *named(&mut hf, name) = Item {
        shape: vec![0, 1 << 50],
        ..Item::zeros(name, &[0])
    };
    let expected = "tensor `blocks.0.att.w1` is [1125899906842624, 0], expected [C, rank]: it must be a matrix with elements";
    assert_eq!(refusal(&safetensors(&hf)), expected);
}

#[test]
fn files_of_other_kinds_are_refused() {
    let expected = "expected a zip (.pth), a pickle (older .pth), a safetensors header or GGUF";
    assert_eq!(
        refusal(b""),
        format!("`FILE` is no checkpoint: it is empty, {expected}")
    );
    assert_eq!(
        refusal(b"GGML"),
        format!("`FILE` is no checkpoint: it starts with [47, 47, 4d, 4c], {expected}")
    );
    assert_eq!(
        refusal(b"GGUF"),
        "`FILE`: its header needs 4 bytes at byte 4, but the file has 4"
    );
    let pickle = [0x80u8, 2, b'}', b'.', 0, 0, 0, 0, 0, 0];
    assert_eq!(
        refusal(&pickle),
        "`FILE`: it is a pickle, but not one that torch.save wrote"
    );
    let other = zipped(&[("archive/readme", b"hello")]);
    assert_eq!(
        refusal(&other),
        "`FILE`: it has no data.pkl: not written by torch.save"
    );
    let file = safetensors(&items());
    assert!(
        refusal(&file[..100]).starts_with("`FILE`: its header should have "),
        "{}",
        refusal(&file[..100])
    );
    assert!(refusal(&file[..file.len() - 1]).contains(" ends at byte "));
    assert!(
        Model::open(std::path::Path::new("/nowhere"))
            .unwrap_err()
            .to_string()
            .starts_with("`/nowhere`: ")
    );
}

#[test]
fn offsets_that_add_up_to_more_than_memory_are_refused() {
    let step = (1u64 << 61) - 32;
    let entry = |i: u64| {
        let (start, shape) = (i * step, step);
        format!(
            r#""t{i}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[{start},{}]}}"#,
            start + step
        )
    };
    let header = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
    let expected = format!("`FILE`: tensor `t0` ends at byte {step} of the data, which has 0 bytes");
    assert_eq!(refusal(&with_header(&header, &[])), expected);
    let integers = r#"{"emb.weight":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let expected = "`FILE`: tensor `emb.weight` is stored as I64, expected F32, F16 or BF16";
    assert_eq!(refusal(&with_header(integers, &[0; 8])), expected);
}

#[test]
fn byte_orders_are_checked() {
    let (views, storages) = contiguous(&items());
    let expected = "`FILE`: its byte order is `big`, expected `little`";
    assert_eq!(refusal(&pth_with(&views, &storages, "big")), expected);
    assert_eq!(refusal(&legacy_with(&views, &storages, false)), expected);
}

#[test]
fn compressed_entries_are_refused() {
    let mut file = pth(&items());
    // The compression method in the directory: bytes 10 and 11 of each entry.
    let starts: Vec<usize> = (0..file.len() - 4)
        .filter(|&i| file[i..i + 4] == *b"PK\x01\x02")
        .collect();
    file[starts[2] + 10] = 8;
    let expected = "`FILE`: entry `archive/data/0` is compressed or encrypted; \
        torch.save stores its entries, and only stored ones can be mapped";
    assert_eq!(refusal(&file), expected);
}

#[test]
fn views_lie_in_their_storage() {
    let change = |change: &dyn Fn(&mut Strided)| {
        let (mut views, storages) = contiguous(&items());
        change(views.iter_mut().find(|v| v.name == "head.weight").unwrap());
        let (zip, plain) = (
            pth_with(&views, &storages, "little"),
            legacy_with(&views, &storages, true),
        );
        assert_eq!(refusal(&zip), refusal(&plain));
        refusal(&zip)
    };
    let (views, _) = contiguous(&items());
    let key = views
        .iter()
        .find(|v| v.name == "head.weight")
        .unwrap()
        .key
        .clone();
    let beyond = format!("`FILE`: tensor `head.weight` reaches beyond the 320 bytes of its storage `{key}`");
    assert_eq!(change(&|v| v.offset = 1), beyond);
    assert_eq!(change(&|v| v.offset = i64::MAX), beyond);
    assert_eq!(change(&|v| v.strides = vec![i64::MAX, i64::MAX]), beyond);
    // Every element is there, but a small file would fill the memory.
    assert_eq!(
        change(&|v| (v.shape, v.strides) = (vec![1 << 40, 8], vec![0, 1])),
        beyond
    );
    let impossible = change(&|v| v.shape = vec![i64::MAX, i64::MAX]);
    assert_eq!(
        impossible,
        format!(
            "`FILE`: tensor `head.weight` has the impossible shape {:?}",
            [i64::MAX; 2]
        )
    );
    assert!(change(&|v| v.len = i64::MAX).starts_with("`FILE`: tensor `head.weight` needs a storage of "));
    assert!(change(&|v| v.offset = -1).ends_with("a negative size"));
    assert!(change(&|v| v.shape = vec![8; 9]).ends_with("a tensor of 9 dimensions, at most 8"));
    // No element: the offset is that of nothing.
    let empty = change(&|v| (v.shape, v.offset) = (vec![0, 8], i64::MAX));
    assert_eq!(
        empty,
        "tensor `head.weight` is [0, 8], expected [10, 8]: its sizes come from `emb.weight`"
    );
}

#[test]
fn strided_views_of_one_storage_do_not_fill_the_memory() {
    let (mut views, storages) = contiguous(&[Item::zeros("a", &[100, 100])]);
    views[0].strides = vec![1, 100];
    let many: Vec<Strided> = (0..50)
        .map(|i| Strided {
            name: format!("t{i}"),
            ..views[0].clone()
        })
        .collect();
    let message = refusal(&pth_with(&many, &storages, "little"));
    assert_eq!(
        message,
        "`FILE`: tensor `t1` and the strided ones before it would take more memory than the file has bytes"
    );
}

#[test]
fn integers_are_no_weights() {
    let (mut views, storages) = contiguous(&items());
    views[0].dtype = rwkvc_ir::DType::I32;
    let known = "torch.FloatStorage, torch.HalfStorage or torch.BFloat16Storage";
    let message = refusal(&pth_with(&views, &storages, "little"));
    assert!(
        message.ends_with(&format!("a storage is `torch.IntStorage`, expected {known}")),
        "{message}"
    );
}

/// A file whose pickle is any bytes.
fn pickled(pickle: &[u8]) -> String {
    refusal(&zipped(&[("archive/data.pkl", pickle)]))
}

#[test]
fn pickles_execute_nothing() {
    let expected = "it calls `os.system`, which is not part of a checkpoint of tensors";
    assert!(pickled(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.").ends_with(expected));
    assert!(pickled(b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.").ends_with(expected));
    assert!(pickled(b"\x80\x02ios\nsystem\n.").ends_with("opcode 0x69 has no place in a checkpoint"));
    assert!(pickled(b"\x80\x02]K\x01e.").ends_with("there is no mark"));
    assert!(pickled(b"\x80\x02").ends_with("it ends in the middle"));
    assert!(pickled(b"\x80\x02}X\x01\0\0\0aK\x01s.").ends_with("`a` is not a tensor"));
}

#[test]
fn pickles_take_bounded_memory() {
    // Nested tuples, deeper than any stack.
    let mut nested = vec![b')'];
    nested.extend([0x85].repeat(1 << 20));
    nested.push(b'.');
    assert!(pickled(&nested).ends_with("more than 262144 values"));
    // Without end.
    assert!(pickled(&b"N".repeat(5 << 20)).ends_with("it does not end within 4194304 bytes"));
    // One long name for many classes.
    let mut names = b"X\x00\x10\x00\x00".to_vec();
    names.extend(b"a".repeat(1 << 12));
    names.extend(b"q\x00h\x00\x93");
    assert!(pickled(&names).ends_with("a name of more than 256 bytes"));
}
