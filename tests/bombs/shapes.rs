//! Components that are cheap to send and dear to compile: the shapes that were measured, in any size, wrapped as executors. The same for a seed.

use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a module does to a compiler.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// So many functions that do nothing.
    Functions(u32),
    /// Bodies of so many additions in a row, so many of them.
    Adds { bodies: u32, adds: u32 },
    /// Bodies of so many `if`s with `else` in a row.
    Ifs { bodies: u32, ifs: u32 },
    /// Bodies with so many values live at once, then summed.
    Live { bodies: u32, values: u32 },
    /// Bodies with so many locals, all rewritten inside nested loops.
    Locals { bodies: u32, locals: u32, loops: u32 },
    /// Bodies of so many branch tables with so many targets each.
    Tables { bodies: u32, tables: u32, targets: u32 },
    /// So many nested blocks around one branch table to some of them.
    Blocks { blocks: u32, targets: u32 },
}

impl Shape {
    /// The executor that holds it. `seed` changes the constants and nothing of the shape, so that no cache knows it.
    pub(crate) fn component(self, seed: u64) -> Vec<u8> {
        let (count, body) = self.bodies(&mut Random(seed));
        wrap(&module(count, &body))
    }

    /// How many bodies, and one of them.
    fn bodies(self, random: &mut Random) -> (u32, Function) {
        // Constants of the same length, whatever they are.
        let mut constant = || Instruction::I32Const((random.next() % (1 << 18) + (1 << 18)).cast_signed());
        match self {
            Shape::Functions(count) => {
                let mut body = Function::new([]);
                body.instruction(&constant()).instruction(&Instruction::End);
                (count, body)
            }
            Shape::Adds { bodies, adds } => {
                let mut body = Function::new([]);
                body.instruction(&Instruction::LocalGet(0));
                for _ in 0..adds {
                    body.instruction(&Instruction::LocalGet(0))
                        .instruction(&Instruction::I32Add);
                }
                body.instruction(&Instruction::End);
                (bodies, body)
            }
            Shape::Ifs { bodies, ifs } => {
                let mut body = Function::new([]);
                for _ in 0..ifs {
                    body.instruction(&Instruction::LocalGet(0))
                        .instruction(&Instruction::If(BlockType::Empty))
                        .instruction(&constant())
                        .instruction(&Instruction::LocalSet(0))
                        .instruction(&Instruction::Else)
                        .instruction(&constant())
                        .instruction(&Instruction::LocalSet(0))
                        .instruction(&Instruction::End);
                }
                body.instruction(&Instruction::LocalGet(0))
                    .instruction(&Instruction::End);
                (bodies, body)
            }
            Shape::Live { bodies, values } => {
                let mut body = Function::new([]);
                for _ in 0..values {
                    body.instruction(&Instruction::LocalGet(0))
                        .instruction(&constant())
                        .instruction(&Instruction::I32Mul);
                }
                for _ in 1..values {
                    body.instruction(&Instruction::I32Add);
                }
                body.instruction(&Instruction::End);
                (bodies, body)
            }
            Shape::Locals { bodies, locals, loops } => (bodies, rewritten(locals, loops)),
            Shape::Tables {
                bodies,
                tables,
                targets,
            } => {
                let mut body = Function::new([]);
                for _ in 0..tables {
                    let targets: Vec<u32> = (0..targets).map(|_| random.next() % 3).collect();
                    body.instruction(&Instruction::Block(BlockType::Empty))
                        .instruction(&Instruction::Block(BlockType::Empty))
                        .instruction(&Instruction::Block(BlockType::Empty))
                        .instruction(&Instruction::LocalGet(0))
                        .instruction(&Instruction::BrTable(targets.into(), 0))
                        .instruction(&Instruction::End)
                        .instruction(&Instruction::End)
                        .instruction(&Instruction::End);
                }
                body.instruction(&Instruction::LocalGet(0))
                    .instruction(&Instruction::End);
                (bodies, body)
            }
            Shape::Blocks { blocks, targets } => {
                let mut body = Function::new([]);
                for _ in 0..blocks {
                    body.instruction(&Instruction::Block(BlockType::Empty));
                }
                let targets: Vec<u32> = (0..targets).collect();
                body.instruction(&Instruction::LocalGet(0))
                    .instruction(&Instruction::BrTable(targets.into(), 0));
                for _ in 0..blocks {
                    body.instruction(&Instruction::End);
                }
                body.instruction(&Instruction::LocalGet(0))
                    .instruction(&Instruction::End);
                (1, body)
            }
        }
    }
}

/// SplitMix64: good enough for constants.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(mixed >> 32).expect("half of it fits")
    }
}

fn rewritten(locals: u32, loops: u32) -> Function {
    // The parameter is a local as well.
    let mut body = Function::new([(locals.saturating_sub(1), ValType::I32)]);
    for _ in 0..loops {
        body.instruction(&Instruction::Loop(BlockType::Empty));
    }
    for local in 0..locals {
        body.instruction(&Instruction::LocalGet(local))
            .instruction(&Instruction::LocalGet((local + 1) % locals))
            .instruction(&Instruction::I32Add)
            .instruction(&Instruction::LocalSet(local));
    }
    for _ in 0..loops {
        body.instruction(&Instruction::LocalGet(0))
            .instruction(&Instruction::BrIf(0))
            .instruction(&Instruction::End);
    }
    body.instruction(&Instruction::LocalGet(0))
        .instruction(&Instruction::End);
    body
}

/// A module that exports what an executor must, and has one body so many times.
fn module(count: u32, body: &Function) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0).function(1);
    for _ in 0..count {
        functions.function(0);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports
        .export("memory", ExportKind::Memory, 0)
        .export("skep:agent/executor@0.1.0#execute", ExportKind::Func, 0)
        .export("cabi_realloc", ExportKind::Func, 1);
    let mut stub = Function::new([]);
    stub.instruction(&Instruction::Unreachable)
        .instruction(&Instruction::End);
    let mut code = CodeSection::new();
    code.function(&stub).function(&stub);
    for _ in 0..count {
        code.function(body);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code);
    module.finish()
}

fn wrap(module: &[u8]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit"))
        .expect("the contract parses");
    let world = resolve
        .select_world(&[package], Some("executor-agent"))
        .expect("the world is there");
    let mut bytes = module.to_vec();
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).expect("the metadata fits");
    ComponentEncoder::default()
        .validate(false)
        .module(&bytes)
        .expect("a module")
        .encode()
        .expect("a component")
}
