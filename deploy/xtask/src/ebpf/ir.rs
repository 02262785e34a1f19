//! LLVM IR of the host's target, retargeted to BPF: text in, text out.
//!
//! rustc's stable compiler has no `core` for BPF, but what the kernel side uses of `core` is
//! generic or inlined, so its IR for a 64-bit little-endian host is the IR that BPF needs. Only
//! the two target lines and the host's own function attributes differ.

/// What LLVM calls 64-bit little-endian BPF.
const TRIPLE: &str = "bpfel";
const DATA_LAYOUT: &str = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128";
/// Attributes of the x86-64 host that the BPF backend does not know.
const HOST_ATTRIBUTES: [&str; 3] = [
    "\"target-cpu\"=\"x86-64\"",
    "\"probe-stack\"=\"inline-asm\"",
    "\"target-features\"=\"+x87,+sse2\"",
];

/// The same module for BPF.
pub fn retarget(ir: &str) -> String {
    let mut text = String::with_capacity(ir.len());
    for line in ir.lines() {
        if line.starts_with("target datalayout = ") {
            text.push_str(&format!("target datalayout = \"{DATA_LAYOUT}\""));
        } else if line.starts_with("target triple = ") {
            text.push_str(&format!("target triple = \"{TRIPLE}\""));
        } else if line.starts_with("attributes #") {
            let mut line = line.to_owned();
            for attribute in HOST_ATTRIBUTES {
                line = line.replace(attribute, "");
            }
            text.push_str(&line);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// The names that the program itself gave: programs, maps, patched statics, the license.
pub fn exports(ir: &str) -> Vec<String> {
    let mut names: Vec<String> = ir.lines().filter_map(defined).map(str::to_owned).collect();
    names.sort();
    names
}

fn defined(line: &str) -> Option<&str> {
    let hidden = ["private", "internal", "external"];
    let (name, linkage) = if let Some(rest) = line.strip_prefix('@') {
        rest.split_once(" = ")?
    } else {
        let rest = line.strip_prefix("define ")?;
        let (linkage, name) = rest.split_once('@')?;
        (name.split_once('(')?.0, linkage)
    };
    let mangled = name.starts_with('_') || name.starts_with("rust_") || name.contains('.');
    let own = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let linked = linkage.split(' ').any(|word| hidden.contains(&word));
    (own && !mangled && !linked).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_lines_and_attributes_become_bpf() {
        let host = "target datalayout = \"e-m:e-f80:128\"\ntarget triple = \"x86_64-unknown\"\n\
                    attributes #0 = { nounwind \"probe-stack\"=\"inline-asm\" }\n";
        assert_eq!(
            retarget(host),
            format!(
                "target datalayout = \"{DATA_LAYOUT}\"\ntarget triple = \"bpfel\"\n\
                 attributes #0 = {{ nounwind  }}\n"
            )
        );
    }

    #[test]
    fn only_names_of_our_own_are_exported() {
        let ir = "@CELLS = global [28 x i8] zeroinitializer, section \"maps\"\n\
                  @alloc_1 = private constant [1 x i8] zeroinitializer\n\
                  define dso_local noundef i32 @walk(ptr %ctx) section \"iter/x\" {\n\
                  define internal void @_ZN5probe4pick17hE(ptr %0) {\n\
                  define hidden void @_RNvCs1_7rust_begin_unwind(ptr %0) {\n\
                  declare i32 @rust_eh_personality(...)\n";
        assert_eq!(exports(ir), ["CELLS", "walk"]);
    }
}
