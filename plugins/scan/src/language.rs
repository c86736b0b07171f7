//! Which language a file is in, by its name, and how that language writes comments.

/// A language.
#[derive(Debug, PartialEq, Eq)]
pub struct Language {
    /// What people call it.
    pub name: &'static str,
    /// Extensions of its files, in lower case, without the dot.
    pub extensions: &'static [&'static str],
    /// Whole names of its files, in lower case.
    pub names: &'static [&'static str],
    /// How its comments look.
    pub comments: Comments,
    /// Source code: somebody's work that a license should cover.
    pub is_source: bool,
}

/// How comments begin and end.
#[derive(Debug, PartialEq, Eq)]
pub struct Comments {
    /// What opens a comment that ends with the line.
    pub line: &'static [&'static str],
    /// What opens a comment, and what closes it.
    pub block: &'static [(&'static str, &'static str)],
}

const SLASH: Comments = Comments {
    line: &["//"],
    block: &[("/*", "*/")],
};
const HASH: Comments = Comments {
    line: &["#"],
    block: &[],
};
const PYTHON: Comments = Comments {
    line: &["#"],
    block: &[("\"\"\"", "\"\"\""), ("'''", "'''")],
};
const PHP: Comments = Comments {
    line: &["//", "#"],
    block: &[("/*", "*/"), ("<!--", "-->")],
};
const CSS: Comments = Comments {
    line: &[],
    block: &[("/*", "*/")],
};
const MARKUP: Comments = Comments {
    line: &[],
    block: &[("<!--", "-->")],
};
const WEB: Comments = Comments {
    line: &["//"],
    block: &[("/*", "*/"), ("<!--", "-->")],
};
const DASH: Comments = Comments {
    line: &["--"],
    block: &[("/*", "*/")],
};
const HASKELL: Comments = Comments {
    line: &["--"],
    block: &[("{-", "-}")],
};
const LUA: Comments = Comments {
    line: &["--"],
    block: &[("--[[", "]]")],
};
const ML: Comments = Comments {
    line: &["//"],
    block: &[("(*", "*)")],
};
const LISP: Comments = Comments {
    line: &[";"],
    block: &[("#|", "|#")],
};
const PERCENT: Comments = Comments {
    line: &["%"],
    block: &[],
};
const POWERSHELL: Comments = Comments {
    line: &["#"],
    block: &[("<#", "#>")],
};
const QUOTE: Comments = Comments {
    line: &["'", "REM ", "Rem ", "rem "],
    block: &[],
};
const BATCH: Comments = Comments {
    line: &["::", "REM ", "rem "],
    block: &[],
};
const BANG: Comments = Comments {
    line: &["!"],
    block: &[],
};
const VIM: Comments = Comments {
    line: &["\"", "#"],
    block: &[],
};
const RUBY: Comments = Comments {
    line: &["#"],
    block: &[("=begin", "=end")],
};
const JULIA: Comments = Comments {
    line: &["#"],
    block: &[("#=", "=#")],
};
const SCRIPT: Comments = Comments {
    line: &["//", "#"],
    block: &[("/*", "*/")],
};
const ASSEMBLY: Comments = Comments {
    line: &[";", "//", "#", "@"],
    block: &[("/*", "*/")],
};
const PASCAL: Comments = Comments {
    line: &["//"],
    block: &[("{", "}"), ("(*", "*)")],
};
const INI: Comments = Comments {
    line: &[";", "#"],
    block: &[],
};
const NIM: Comments = Comments {
    line: &["#"],
    block: &[("#[", "]#")],
};
const NO_COMMENTS: Comments = Comments { line: &[], block: &[] };

/// For a file of no known language: what most of them use.
pub const UNKNOWN: Comments = Comments {
    line: &["//", "#", "--", ";"],
    block: &[("/*", "*/"), ("<!--", "-->")],
};

const fn source(name: &'static str, extensions: &'static [&'static str], comments: Comments) -> Language {
    Language {
        name,
        extensions,
        names: &[],
        comments,
        is_source: true,
    }
}

const fn text(name: &'static str, extensions: &'static [&'static str], comments: Comments) -> Language {
    Language {
        name,
        extensions,
        names: &[],
        comments,
        is_source: false,
    }
}

const fn named(language: Language, names: &'static [&'static str]) -> Language {
    Language { names, ..language }
}

/// Every language, by name.
pub const LANGUAGES: &[Language] = &[
    source("Ada", &["adb", "ads"], HASKELL),
    source("Assembly", &["s", "asm", "nasm"], ASSEMBLY),
    source("Astro", &["astro"], WEB),
    named(source("Autoconf", &["ac", "m4", "am"], HASH), &["configure.in"]),
    source("Batch", &["bat", "cmd"], BATCH),
    named(
        source("Bazel", &["bzl", "bazel", "star"], HASH),
        &["build", "workspace"],
    ),
    source("C", &["c"], SLASH),
    source("C header", &["h"], SLASH),
    source("C#", &["cs", "csx"], SLASH),
    source(
        "C++",
        &["cpp", "cc", "cxx", "hpp", "hh", "hxx", "ipp", "inl", "tpp"],
        SLASH,
    ),
    named(source("CMake", &["cmake"], HASH), &["cmakelists.txt"]),
    source("Clojure", &["clj", "cljs", "cljc", "edn"], LISP),
    source("CoffeeScript", &["coffee"], HASH),
    source("Common Lisp", &["lisp", "cl", "lsp"], LISP),
    source("Crystal", &["cr"], HASH),
    text("CSS", &["css"], CSS),
    text("CSV", &["csv", "tsv"], NO_COMMENTS),
    source("CUDA", &["cu", "cuh"], SLASH),
    source("Cython", &["pyx", "pxd", "pxi"], PYTHON),
    source("D", &["d", "di"], SLASH),
    source("Dart", &["dart"], SLASH),
    text("Diff", &["diff", "patch"], NO_COMMENTS),
    named(
        source("Dockerfile", &["dockerfile"], HASH),
        &["dockerfile", "containerfile"],
    ),
    source("Elixir", &["ex", "exs"], HASH),
    source("Elm", &["elm"], HASKELL),
    source("Emacs Lisp", &["el"], LISP),
    source("Erlang", &["erl", "hrl"], PERCENT),
    source("F#", &["fs", "fsi", "fsx"], ML),
    source("Fortran", &["f", "f90", "f95", "f03", "f08", "for"], BANG),
    source(
        "GLSL",
        &["glsl", "vert", "frag", "comp", "hlsl", "wgsl", "metal"],
        SLASH,
    ),
    named(source("Go", &["go"], SLASH), &["go.mod", "go.work"]),
    source("GraphQL", &["graphql", "gql"], HASH),
    named(source("Groovy", &["groovy", "gradle"], SLASH), &["jenkinsfile"]),
    source("HCL", &["tf", "hcl", "tfvars"], SCRIPT),
    text("HTML", &["html", "htm", "xhtml"], WEB),
    source("Haskell", &["hs", "lhs"], HASKELL),
    text(
        "INI",
        &[
            "ini",
            "cfg",
            "conf",
            "properties",
            "editorconfig",
            "env",
            "desktop",
            "service",
        ],
        INI,
    ),
    text(
        "JSON",
        &["json", "jsonl", "json5", "jsonc", "geojson", "webmanifest"],
        NO_COMMENTS,
    ),
    source("Java", &["java"], SLASH),
    source("JavaScript", &["js", "mjs", "cjs"], SLASH),
    source("JSX", &["jsx"], SLASH),
    source("Julia", &["jl"], JULIA),
    text("Jupyter", &["ipynb"], NO_COMMENTS),
    named(source("Just", &["just"], HASH), &["justfile"]),
    source("Kotlin", &["kt", "kts"], SLASH),
    text("Less", &["less"], SLASH),
    source("Lua", &["lua"], LUA),
    named(source("Makefile", &["mk", "mak"], HASH), &["makefile", "gnumakefile"]),
    text("Markdown", &["md", "markdown", "mdx"], MARKUP),
    source("Meson", &["meson"], HASH),
    source("Nim", &["nim", "nims"], NIM),
    source("Nix", &["nix"], SCRIPT),
    source("OCaml", &["ml", "mli"], ML),
    source("Objective-C", &["m", "mm"], SLASH),
    source("PHP", &["php", "phtml"], PHP),
    source("Pascal", &["pas", "pp", "dpr"], PASCAL),
    source("Perl", &["pl", "pm", "t"], HASH),
    source("PowerShell", &["ps1", "psm1", "psd1"], POWERSHELL),
    source("Prolog", &["pro", "prolog"], PERCENT),
    source("Protocol Buffers", &["proto"], SLASH),
    named(
        source("Python", &["py", "pyi", "pyw"], PYTHON),
        &["sconstruct", "wscript"],
    ),
    source("R", &["r"], HASH),
    text("reStructuredText", &["rst"], NO_COMMENTS),
    named(
        source("Ruby", &["rb", "rake", "gemspec", "erb"], RUBY),
        &["gemfile", "rakefile", "vagrantfile", "podfile"],
    ),
    source("Rust", &["rs"], SLASH),
    text("SVG", &["svg"], MARKUP),
    source("SQL", &["sql", "psql"], DASH),
    source("Scala", &["scala", "sc", "sbt"], SLASH),
    source("Scheme", &["scm", "ss", "rkt"], LISP),
    text("Sass", &["sass", "scss"], SLASH),
    named(
        source("Shell", &["sh", "bash", "zsh", "fish", "ksh"], HASH),
        &[".bashrc", ".zshrc", ".profile", ".bash_profile", "pkgbuild"],
    ),
    source("Solidity", &["sol"], SLASH),
    source("Svelte", &["svelte"], WEB),
    source("Swift", &["swift"], SLASH),
    text("TOML", &["toml"], HASH),
    source("Tcl", &["tcl"], HASH),
    text("TeX", &["tex", "sty", "cls", "bib"], PERCENT),
    text("Text", &["txt", "text", "log"], NO_COMMENTS),
    source("TSX", &["tsx"], SLASH),
    source("TypeScript", &["ts", "mts", "cts"], SLASH),
    source("V", &["v", "vsh"], SLASH),
    source("VHDL", &["vhd", "vhdl"], HASKELL),
    source("Verilog", &["sv", "svh", "vh"], SLASH),
    named(source("Vim script", &["vim"], VIM), &[".vimrc"]),
    source("Visual Basic", &["vb", "bas", "vbs"], QUOTE),
    source("Vue", &["vue"], WEB),
    source("WIT", &["wit"], SLASH),
    source(
        "WebAssembly text",
        &["wat", "wast"],
        Comments {
            line: &[";;"],
            block: &[("(;", ";)")],
        },
    ),
    text(
        "XML",
        &[
            "xml", "xsd", "xsl", "xslt", "plist", "csproj", "props", "targets", "xaml",
        ],
        MARKUP,
    ),
    text("YAML", &["yml", "yaml"], HASH),
    source("Zig", &["zig", "zon"], SLASH),
];

/// The language of a file by its path; `None` when the name says nothing.
pub fn of_path(path: &str) -> Option<&'static Language> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let by_name = || LANGUAGES.iter().find(|language| language.names.contains(&&*name));
    let by_extension = || {
        let (_, extension) = name.rsplit_once('.')?;
        LANGUAGES
            .iter()
            .find(|language| language.extensions.contains(&extension))
    };
    by_name().or_else(by_extension)
}

/// The language of a script by its first line, `#!/usr/bin/env python3`.
pub fn of_shebang(text: &[u8]) -> Option<&'static Language> {
    let line = text.strip_prefix(b"#!")?;
    let line = line.get(..line.len().min(128))?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'/' | b'\t' | b'\r'))
        .filter(|word| !word.is_empty() && !word.starts_with(b"-"));
    let name = words.rfind(|word| !word.contains(&b'='))?;
    let name: Vec<u8> = name.iter().copied().take_while(u8::is_ascii_alphabetic).collect();
    let language = match &*name {
        b"sh" | b"bash" | b"dash" | b"zsh" | b"ksh" | b"fish" => "Shell",
        b"python" | b"pypy" => "Python",
        b"node" | b"deno" | b"bun" => "JavaScript",
        b"ruby" => "Ruby",
        b"perl" => "Perl",
        b"php" => "PHP",
        b"lua" | b"luajit" => "Lua",
        b"tclsh" | b"wish" => "Tcl",
        b"Rscript" => "R",
        b"make" => "Makefile",
        _ => return None,
    };
    LANGUAGES.iter().find(|known| known.name == language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_by_name_and_first_line() {
        let cases = [
            ("src/main.rs", "Rust"),
            ("A/B.PY", "Python"),
            ("Dockerfile", "Dockerfile"),
            ("x/CMakeLists.txt", "CMake"),
            ("notes.txt", "Text"),
            ("a.tar.gz", ""),
            ("LICENSE", ""),
            ("go.mod", "Go"),
            (".env", "INI"),
        ];
        for (path, expected) in cases {
            assert_eq!(of_path(path).map_or("", |language| language.name), expected, "{path}");
        }
        let cases = [
            ("#!/bin/sh\nexit", "Shell"),
            ("#!/usr/bin/env python3.11\n", "Python"),
            ("#! /usr/bin/perl -w", "Perl"),
            ("#!/usr/bin/env -S deno run", ""),
            ("#!", ""),
            ("no", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(
                of_shebang(text.as_bytes()).map_or("", |language| language.name),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn no_extension_is_claimed_twice() {
        let mut extensions: Vec<_> = LANGUAGES
            .iter()
            .flat_map(|language| language.extensions.iter().chain(language.names))
            .collect();
        extensions.sort_unstable();
        let count = extensions.len();
        extensions.dedup();
        assert_eq!(
            extensions.len() + 1,
            count,
            "`dockerfile` is a name and an extension; nothing else is twice"
        );
        assert!(LANGUAGES.len() >= 60);
    }
}
