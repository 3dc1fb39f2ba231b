//! The C++ file that joins one build of a unit to the shim: which ports it has, and where each is in the words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::units::{Port, Unit, words};

/// The glue's text. `class` is Verilator's name for the unit.
pub fn text(unit: &Unit, class: &str, symbol: &str, traced: bool, mutants: bool) -> String {
    let mut code = format!("#include \"unit.h\"\n#include \"{class}.h\"\n");
    if mutants {
        let _ = writeln!(code, "#include \"{class}_{}.h\"", crate::mutants::PACKAGE);
    }
    let _ = write!(
        code,
        "namespace {{\nstruct Traits {{\n  using Model = {class};\n\
         \x20 static constexpr const char* kName = \"{}\";\n\
         \x20 static constexpr bool kTraced = {traced};\n\
         \x20 static constexpr bool kMutants = {mutants};\n\
         \x20 static constexpr uint32_t kInputWords = {};\n\
         \x20 static constexpr uint32_t kOutputWords = {};\n",
        unit.name,
        words(unit.inputs),
        words(unit.outputs)
    );
    copies(&mut code, "drive(Model& model, const uint32_t* words)", "put", unit.inputs);
    copies(&mut code, "sample(const Model& model, uint32_t* words)", "get", unit.outputs);
    let select = if mutants {
        format!("model.__PVT__{}->selected = mutant;", crate::mutants::PACKAGE)
    } else {
        "(void)model; (void)mutant;".to_owned()
    };
    let _ = write!(
        code,
        "  static void select(Model& model, uint32_t mutant) {{ {select} }}\n}};\n}}  // namespace\n\
         extern \"C\" {{\nextern const UnitFunctions {symbol};\n\
         const UnitFunctions {symbol} = unit_functions<Traits>();\n}}\n"
    );
    code
}

fn copies(code: &mut String, function: &str, copy: &str, ports: &[Port]) {
    let _ = writeln!(code, "  static void {function} {{");
    let mut word = 0;
    for port in ports {
        let _ = writeln!(code, "    {copy}<{}>(model.{}, words + {word});", port.bits, port.name);
        word += port.words();
    }
    code.push_str("  }\n");
}

/// Compares the ports that Verilator found with those of the list.
pub fn check_ports(unit: &Unit, header: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(header).map_err(|error| format!("{}: {error}", header.display()))?;
    let mut found: BTreeMap<String, (bool, usize)> = text.lines().filter_map(declared_port).collect();
    for (input, name, bits) in [(true, "clk_i", 1), (true, "rst_ni", 1)].into_iter().chain(listed(unit)) {
        let direction = if input { "input" } else { "output" };
        match found.remove(name) {
            Some(port) if port == (input, bits) => {}
            Some((_, other)) => {
                return Err(format!(
                    "{}: {direction} {name} of {bits} bits is not what the RTL has ({other} bits)",
                    unit.name
                ));
            }
            None => return Err(format!("{}: the RTL has no {direction} {name}", unit.name)),
        }
    }
    match found.keys().next() {
        Some(name) => Err(format!("{}: port {name} of the RTL is not in src/units.rs", unit.name)),
        None => Ok(()),
    }
}

fn listed(unit: &Unit) -> impl Iterator<Item = (bool, &'static str, usize)> {
    let inputs = unit.inputs.iter().map(|port| (true, port.name, port.bits));
    inputs.chain(unit.outputs.iter().map(|port| (false, port.name, port.bits)))
}

/// `VL_INW(&beat_data_i,511,0,16);` as name, whether it is an input, and width.
fn declared_port(line: &str) -> Option<(String, (bool, usize))> {
    let line = line.trim();
    let input = line.starts_with("VL_IN");
    if !input && !line.starts_with("VL_OUT") {
        return None;
    }
    let (_, arguments) = line.strip_suffix(");")?.split_once('(')?;
    let mut arguments = arguments.split(',');
    let name = arguments.next()?.strip_prefix('&')?;
    let high: usize = arguments.next()?.parse().ok()?;
    let low: usize = arguments.next()?.parse().ok()?;
    Some((name.to_owned(), (input, high - low + 1)))
}
