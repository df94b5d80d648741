package cell_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	codeInvalid = "cell.module_invalid"
	codeImport  = "cell.import_unknown"
	codeInit    = "cell.initialization_failed"
	codeSmall   = "cell.memory_limit_too_small"
	codeEntry   = "cell.entry_signature"
)

// part is a section of a module that is to be spoilt.
type part struct {
	id   byte
	what string
	body []byte
}

// everySection is a valid module with a section of each kind.
func everySection() []part {
	return []part{
		{1, "types", vec([]byte{0x60, 0, 1, i32}, []byte{0x60, 0, 0})},
		{2, "imports", vec(slices.Concat(name("sallyport"), name("event_size"), []byte{0, 0}))},
		{3, "functions", vec([]byte{0}, []byte{1})},
		{4, "tables", vec([]byte{funcRef, 0, 2})},
		{5, "memories", vec([]byte{0, 1})},
		{6, "globals", vec(code(i32, 1, number(7), opEnd))},
		{7, "exports", vec(export("sallyport_handle", kindFunction, 1), export("memory", kindMemory, 0))},
		{8, "start", []byte{2}},
		{9, "elements", vec(code(0, number(0), opEnd, vec([]byte{1})))},
		{12, "data count", []byte{1}},
		{10, "code", vec([]byte{4, 0, opConst, 0, opEnd}, []byte{2, 0, opEnd})},
		{11, "data", vec(code(0, number(0), opEnd, name("data")))},
	}
}

func assembled(parts []part) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, p := range parts {
		out = append(out, section(p.id, p.body)...)
	}
	return out
}

// malformed spoils each section in each way.
func malformed() (all []hostile) {
	whole := everySection()
	add := func(name string, code []byte) {
		all = append(all, hostile{"malformed/" + name, wasm("m.wasm", code), atLoad, codeInvalid, "m.wasm"})
	}
	all = append(all, hostile{"malformed/not at all", wasm("m.wasm", assembled(whole)), nowhere, "", ""})
	for i, p := range whole {
		before, after := assembled(whole[:i]), assembled(whole[i+1:])[8:]
		around := func(way string, middle []byte) { add(p.what+"/"+way, slices.Concat(before, middle, after)) }
		spoilt := func(way string, body []byte) { around(way, section(p.id, body)) }
		whole1 := section(p.id, p.body)

		add(p.what+"/cut off", slices.Concat(before, whole1[:len(whole1)-1]))
		add(p.what+"/only its id", slices.Concat(before, []byte{p.id}))
		around("one byte longer than it is", slices.Concat([]byte{p.id}, uleb(len(p.body)+1), p.body))
		around("one byte shorter than it is", slices.Concat([]byte{p.id}, uleb(len(p.body)-1), p.body))
		around("4 GiB long", slices.Concat([]byte{p.id, 0xff, 0xff, 0xff, 0xff, 0x0f}, p.body))
		around("length in too many bytes", slices.Concat([]byte{p.id, byte(len(p.body)) | 0x80, 0x80, 0x80, 0x80, 0x80, 0}, p.body))
		around("length of 33 bits", slices.Concat([]byte{p.id, 0xff, 0xff, 0xff, 0xff, 0x1f}, p.body))
		around("twice", slices.Concat(whole1, whole1))
		if i > 0 {
			add(p.what+"/before the others", slices.Concat(before[:8], whole1, before[8:], after))
		}
		spoilt("empty", nil)
		spoilt("a byte after its end", append(bytes.Clone(p.body), 0))
		spoilt("without its last byte", p.body[:len(p.body)-1])
		spoilt("one entry more than it has", append([]byte{p.body[0] + 1}, p.body[1:]...))
		spoilt("2^32-1 entries", append([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}, p.body[1:]...))
		spoilt("count in too many bytes", append([]byte{p.body[0] | 0x80, 0x80, 0x80, 0x80, 0x80, 0}, p.body[1:]...))
		if p.what != "start" {
			around("missing", nil)
		}
	}
	for id := 14; id < 256; id += 60 {
		add(fmt.Sprintf("section %d", id), append(assembled(whole), byte(id), 0))
	}
	add("custom section without a name", append(assembled(whole), 0, 0))
	add("custom section with a name that is too long", append(assembled(whole), 0, 2, 0x7f, 'x'))
	add("custom section that is not UTF-8", append(assembled(whole), 0, 2, 1, 0xff))
	return slices.DeleteFunc(all, valid)
}

// valid reports the few spoilt modules that are valid all the same.
func valid(h hostile) bool {
	return slices.Contains([]string{
		"malformed/elements/missing", "malformed/globals/missing", "malformed/imports/missing", // what is left does not name them
		"malformed/data count/missing", "malformed/tables/missing", "malformed/exports/missing",
	}, h.name)
}

func spoilt(name string, a assembly, code, text string) hostile {
	return hostile{name, wasm("m.wasm", a.bytes()), atLoad, code, text}
}

// answer is a handler that does nothing.
var answer = handler(0, opConst, 0)

func hostileImports() (all []hostile) {
	add := func(name string, i ...imported) {
		all = append(all, spoilt("imports/"+name, assembly{imports: i, functions: []function{answer}}, codeImport, "m.wasm imports"))
	}
	for _, from := range []string{"env", "go", "wasi_unstable", "wasi_snapshot_preview2", "sallyport ", "SALLYPORT", "sallyport\x00", "sallyport.event_size", "__proto__"} {
		add(fmt.Sprintf("module %q", from), imported{from, "event_size", nil, []byte{i32}})
	}
	for _, what := range []string{"", "event_size\x00", "\x1b[2J\r\n", "\u202egnp.exe", "secret_read", "fd_write", "../event_size"} {
		add(fmt.Sprintf("name %q", what), imported{"sallyport", what, nil, []byte{i32}})
	}
	for _, what := range []string{"host_call", "host_promise_rejection", "host_interrupt", "host_module_load"} {
		add("the engine of scripts: "+what, imported{"env", what, nil, nil})
	}
	all = append(all, spoilt("imports/module without a name", assembly{imports: []imported{{"", "event_size", nil, nil}}, functions: []function{answer}}, codeInvalid, ""),
		spoilt("imports/name of 100 KB", assembly{imports: []imported{{"sallyport", strings.Repeat("n", 100_000), nil, nil}}, functions: []function{answer}}, codeInvalid, "name"),
		spoilt("imports/module of 100 KB", assembly{imports: []imported{{strings.Repeat("m", 100_000), "n", nil, nil}}, functions: []function{answer}}, codeInvalid, "name"),
		spoilt("imports/name that is not UTF-8", assembly{imports: []imported{{"sallyport", "\xff\xfe", nil, nil}}, functions: []function{answer}}, codeInvalid, ""),
		spoilt("imports/10,000 of one", assembly{imports: slices.Repeat([]imported{host("event_size", 0, 1)}, 10_000), functions: []function{answer}}, codeInvalid, "imports"),
		hostile{"imports/500 of one", wasm("m.wasm", assembly{imports: slices.Repeat([]imported{host("event_size", 0, 1)}, 500), functions: []function{answer}}.bytes()), nowhere, "", ""})
	for params := range 5 {
		if params != 2 {
			add(fmt.Sprintf("signature with %d parameters", params), host("event_read", params, 1))
		}
	}
	add("signature without a result", host("event_size", 0, 0))
	add("signature with a float", imported{"sallyport", "event_size", nil, []byte{0x7d}})
	add("one good and one bad of the same name", host("event_size", 0, 1), host("event_size", 1, 1))
	for kind, entry := range map[string][]byte{
		"table": {1, funcRef, 0, 1}, "memory": {2, 0, 1}, "shared memory": {2, 3, 1, 1}, "64-bit memory": {2, 4, 1},
		"global": {3, i32, 0}, "mutable global": {3, i32, 1}, "tag": {4, 0, 0}, "unknown kind": {9, 0},
	} {
		code := assembled([]part{{1, "", vec([]byte{0x60, 0, 0})}, {2, "", vec(slices.Concat(name("sallyport"), name("x"), entry))}})
		all = append(all, hostile{"imports/" + kind, wasm("m.wasm", code), atLoad, codeInvalid, ""})
	}
	return all
}

func hostileExports() (all []hostile) {
	withExports := func(exports ...[]byte) assembly {
		return assembly{functions: []function{answer}, exports: exports, pages: 1, table: vec([]byte{funcRef, 0, 1}),
			sections: map[byte][]byte{6: vec(code(i32, 1, number(7), opEnd))}}
	}
	for _, as := range []string{"sallyport:", "sallyport:stop", "sallyport:start", "sallyport:global:0", "sallyport:global:1", "sallyport:global:", "sallyport:\x00", "sallyport:future"} {
		for kind, what := range []string{"function", "table", "memory", "global"} {
			all = append(all, spoilt(fmt.Sprintf("exports/reserved %q as a %s", as, what), withExports(export(as, byte(kind), 0)), codeInvalid, "sallyport:"))
		}
	}
	for _, as := range []string{"sallyport_handle", "memory"} {
		all = append(all, spoilt("exports/"+as+" twice", withExports(export(as, kindFunction, 0)), codeInvalid, "twice"))
	}
	for kind, what := range []string{"function", "table", "memory", "global"} {
		all = append(all, spoilt("exports/a "+what+" that is not there", withExports(export("x", byte(kind), 1000)), codeInvalid, ""))
		if kind == kindFunction {
			continue
		}
		for _, as := range []string{"sallyport_handle", "_start"} {
			a := withExports(export(as, byte(kind), 0))
			a.functions = []function{{export: "other", results: []byte{i32}, code: number(0)}}
			all = append(all, spoilt(fmt.Sprintf("exports/%s as a %s", as, what), a, "cell.no_entry", "m.wasm"))
		}
		for _, as := range []string{"_initialize", "sallyport_reseed", "_start"} {
			all = append(all, hostile{fmt.Sprintf("exports/%s as a %s beside a handler", as, what), wasm("m.wasm", withExports(export(as, byte(kind), 0)).bytes()), nowhere, "", ""})
		}
	}
	for _, as := range []string{"sallyport_handle", "_start", "_initialize", "sallyport_reseed"} {
		wrong := assembly{functions: []function{{export: as, params: []byte{i32, i64}, results: []byte{i64}, code: code(opConst64, 0)}}}
		if as == "_initialize" || as == "sallyport_reseed" {
			wrong.functions = append(wrong.functions, answer)
		}
		all = append(all, spoilt("exports/"+as+" of another type", wrong, codeEntry, as))
	}
	// An import that is exported again is the host's function, called as the guest's.
	again := assembly{imports: []imported{host("event_size", 0, 1)}, pages: 1, exports: [][]byte{export("sallyport_handle", kindFunction, 0)}}
	all = append(all, hostile{"exports/a host function as the handler", wasm("m.wasm", again.bytes()), atInvoke, "cell.function_failed", ""})
	again.imports = []imported{wasi("sched_yield", ":i")}
	all = append(all, hostile{"exports/a WASI function as the handler", wasm("m.wasm", again.bytes()), nowhere, "", ""})
	reseed := assembly{imports: []imported{host("event_size", 0, 1), wasi("random_get", "ii:i")}, pages: 1, exports: [][]byte{export("sallyport_reseed", kindFunction, 0)},
		functions: []function{answer, {export: "_initialize", code: code(number(0), number(8), opCall, 1, opDrop)}}}
	all = append(all, hostile{"exports/a host function as the reseeding", wasm("m.wasm", reseed.bytes()), nowhere, "", ""})
	for kind, what := range []string{"function", "table"} {
		a := withExports(export("memory", byte(kind), 0))
		a.hidden, a.imports = true, []imported{host("event_read", 2, 1)}
		a.functions = []function{handler(0, code(number(0), number(9), opCall, 0)...)}
		all = append(all, hostile{"exports/memory as a " + what, wasm("m.wasm", a.bytes()), atInvoke, "cell.bad_pointer", "event_read"})
	}
	hidden := assembly{imports: []imported{host("event_read", 2, 1)}, functions: []function{handler(0, code(number(0), number(9), opCall, 0)...)}, pages: 1, hidden: true}
	return append(all, hostile{"exports/memory hidden", wasm("m.wasm", hidden.bytes()), atInvoke, "cell.bad_pointer", "event_read"})
}

func hostileMemories() (all []hostile) {
	memory := func(name string, code string, sizes ...[]byte) {
		parts := everySection()
		for i := range parts {
			if parts[i].what == "memories" {
				parts[i].body = vec(sizes...)
			}
		}
		all = append(all, hostile{"memories/" + name, wasm("m.wasm", assembled(parts)), atLoad, code, ""})
	}
	memory("65,536 pages", codeSmall, slices.Concat([]byte{0}, uleb(65536)))
	memory("65,537 pages", codeInvalid, slices.Concat([]byte{0}, uleb(65537)))
	memory("2^32-1 pages", codeInvalid, []byte{0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	memory("one page over the limit", codeSmall, slices.Concat([]byte{0}, uleb(257)))
	memory("maximum below the minimum", codeInvalid, []byte{1, 2, 1})
	memory("maximum of 65,537 pages", codeInvalid, slices.Concat([]byte{1, 1}, uleb(65537)))
	memory("shared", codeInvalid, []byte{3, 1, 1})
	memory("shared without a maximum", codeInvalid, []byte{2, 1})
	memory("64-bit", codeInvalid, []byte{4, 1})
	memory("64-bit with a maximum", codeInvalid, []byte{5, 1, 1})
	memory("64-bit and shared", codeInvalid, []byte{7, 1, 1})
	memory("pages of one byte", codeInvalid, []byte{8, 1, 0})
	memory("unknown flags", codeInvalid, []byte{0x80, 1})
	memory("two", codeInvalid, []byte{0, 1}, []byte{0, 1})
	table := func(name string, code string, tables ...[]byte) {
		parts := everySection()
		for i := range parts {
			if parts[i].what == "tables" {
				parts[i].body = vec(tables...)
			}
		}
		all = append(all, hostile{"tables/" + name, wasm("m.wasm", assembled(parts)), atLoad, code, ""})
	}
	table("2^32-1 elements", codeInvalid, []byte{funcRef, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	table("one element over the limit", codeInvalid, slices.Concat([]byte{funcRef, 0}, uleb(1<<18+1)))
	table("maximum below the minimum", codeInvalid, []byte{funcRef, 1, 2, 1})
	table("64-bit", codeInvalid, []byte{funcRef, 4, 2})
	table("shared", codeInvalid, []byte{funcRef, 3, 2, 2})
	table("of numbers", codeInvalid, []byte{i32, 0, 2})
	table("of exceptions", codeInvalid, []byte{0x69, 0, 2})
	table("17 of them", codeInvalid, slices.Repeat([][]byte{{funcRef, 0, 2}}, 17)...)
	table("16 that fill the memory limit", codeSmall, slices.Repeat([][]byte{slices.Concat([]byte{funcRef, 0}, uleb(1<<18))}, 16)...)
	all = append(all,
		spoilt("memories/hidden and over the limit", assembly{functions: []function{answer}, pages: 2000, hidden: true}, codeSmall, "131072000"),
		spoilt("memories/data outside", assembly{functions: []function{answer}, pages: 1, sections: map[byte][]byte{11: vec(code(0, number(65533), opEnd, name("data")))}}, codeInit, ""),
		spoilt("memories/data at -1", assembly{functions: []function{answer}, pages: 1, sections: map[byte][]byte{11: vec(code(0, number(-1), opEnd, name("data")))}}, codeInit, ""),
		hostile{"tables/elements outside", wasm("m.wasm", assembly{functions: []function{answer}, table: vec([]byte{funcRef, 0, 1}), sections: map[byte][]byte{9: vec(code(0, number(1), opEnd, vec([]byte{0})))}}.bytes()), nowhere, "", ""},
		spoilt("tables/elements that are not there", assembly{functions: []function{answer}, table: vec([]byte{funcRef, 0, 1}), sections: map[byte][]byte{9: vec(code(0, number(0), opEnd, vec([]byte{9})))}}, codeInvalid, ""))
	return all
}

func hostileStarts() (all []hostile) {
	imports := []imported{host("log", 3, 0), wasi("proc_exit", "i"), host("result_write", 2, 1), wasi("fd_write", "iiii:i")}
	again := func(body ...any) []byte { return code(opLoop, blockVoid, code(body...), opBr, 0, opEnd) }
	for _, s := range []struct {
		name string
		body []byte
		at   stage
		text string
	}{
		{"recursion", code(opCall, 5), atLoad, "recursed"},
		{"trap", code(opUnreachable), atLoad, "unreachable"},
		{"division by zero", code(number(1), number(0), opDivide, opDrop), atLoad, "divide by zero"},
		{"exit with 0", code(number(0), opCall, 1), atLoad, "cannot be initialised"},
		{"exit with 3", code(number(3), opCall, 1), atLoad, "exited with code 3"},
		{"exit with -1", code(number(-1), opCall, 1), atLoad, "cannot be initialised"},
		{"exit as if the time were over", code(number(-2), opCall, 1), atLoad, "cannot be initialised"},
		{"10 MB of log", code(opLoop, blockVoid, number(1), number(0), number(65536), opCall, 0, opLocalGet, 0, number(1), opAdd, 0x22, 0, number(160), opNe, opBrIf, 0, opEnd), nowhere, ""},
		{"result", code(number(0), number(4), opCall, 2, opDrop), nowhere, ""},
		{"result without end", again(number(0), number(65536), opCall, 2, opDrop), atLoad, ""},
		{"log without end", again(number(1), number(0), number(0), opCall, 0), atLoad, ""},
		{"pointer outside", code(number(1), number(-1), number(1), opCall, 0), nowhere, ""},
		{"memory bomb", again(number(1), opMemoryGrow, 0, number(-1), 0x46 /* i32.eq */, opIf, blockVoid, opUnreachable, opEnd), atLoad, "memory"},
		{"memory that grows", code(number(3), opMemoryGrow, 0, opDrop), nowhere, ""},
	} {
		for _, as := range []string{"start function", "_initialize"} {
			a := assembly{imports: imports, functions: []function{answer, {locals: 1, code: s.body}}, pages: 1, start: 5}
			if as == "_initialize" {
				a.start, a.functions[1].export = 0, as
			}
			h := hostile{as + "/" + s.name, wasm("m.wasm", a.bytes()), s.at, "", s.text}
			all = append(all, h)
		}
	}
	return all
}

// keepers are modules that try to keep something for the next event: each ends in a trap when it
// finds what an earlier event left.
func keepers() (all []hostile) {
	add := func(what string, a assembly) {
		if a.pages == 0 {
			a.pages = 1
		}
		all = append(all, hostile{"keeps/" + what, wasm("m.wasm", a.bytes()), nowhere, "", ""})
	}
	trapIf := func(condition ...any) []byte { return code(code(condition...), opIf, blockVoid, opUnreachable, opEnd) }
	done := number(0)
	handle := func(body ...any) []function { return []function{handler(2, code(append(body, done)...)...)} }
	globals := func(entry []byte) map[byte][]byte { return map[byte][]byte{6: vec(entry)} }

	add("an i32 global", assembly{sections: globals(code(i32, 1, number(0), opEnd)),
		functions: handle(trapIf(opGlobalGet, 0), number(7), opGlobalSet, 0)})
	add("an i64 global", assembly{sections: globals(code(i64, 1, opConst64, 0, opEnd)),
		functions: handle(trapIf(opGlobalGet, 0, 0x50, opEqz), opConst64, 0x7f, opGlobalSet, 0)})
	add("an f32 global", assembly{sections: globals(code(0x7d, 1, 0x43, []byte{0, 0, 0, 0}, opEnd)),
		functions: handle(trapIf(opGlobalGet, 0, 0xbc), 0x43, []byte{1, 0, 0xa0, 0x7f}, opGlobalSet, 0)})
	add("an f64 global", assembly{sections: globals(code(0x7c, 1, 0x44, make([]byte, 8), opEnd)),
		functions: handle(trapIf(opGlobalGet, 0, 0xbd, 0x50, opEqz), 0x44, []byte{1, 0, 0, 0, 0, 0, 0xf4, 0x7f}, opGlobalSet, 0)})
	add("an exported global", assembly{sections: globals(code(i32, 1, number(0), opEnd)), exports: [][]byte{export("sallyport_state", kindGlobal, 0)},
		functions: handle(trapIf(opGlobalGet, 0), number(7), opGlobalSet, 0)})
	add("a v128 global", assembly{sections: globals(code(0x7b, 1, opVector, 12, make([]byte, 16), opEnd)),
		functions: handle(trapIf(opGlobalGet, 0, opVector, 83), opVector, 12, bytes.Repeat([]byte{0xee}, 16), opGlobalSet, 0)})
	add("a funcref global", assembly{sections: globals(code(funcRef, 1, opRefNull, funcRef, opEnd)), exports: [][]byte{export("f", kindFunction, 0)},
		functions: handle(trapIf(opGlobalGet, 0, opRefIsNull, opEqz), opRefFunc, 0, opGlobalSet, 0)})
	many := slices.Repeat([][]byte{code(i32, 1, number(0), opEnd)}, 1000)
	add("the last of 1,000 globals", assembly{sections: map[byte][]byte{6: vec(many...)},
		functions: handle(trapIf(opGlobalGet, uleb(999)), number(7), opGlobalSet, uleb(999))})

	table := vec([]byte{funcRef, 1, 2, 100})
	declared := [][]byte{export("f", kindFunction, 0)}
	full := trapIf(number(1), opTableGet, 0, opRefIsNull, opEqz)
	add("a table element", assembly{table: table, exports: declared, functions: handle(full, number(1), opRefFunc, 0, opTableSet, 0)})
	add("an element of an extern table", assembly{table: vec([]byte{externRef, 1, 2, 2}), functions: handle(full, number(1), opRefNull, externRef, opTableSet, 0)})
	add("table.fill", assembly{table: table, exports: declared, functions: handle(full, number(0), opRefFunc, 0, number(2), opBulk, 17, 0)})
	add("table.grow", assembly{table: table, exports: declared, functions: handle(
		trapIf(opBulk, 16, 0, number(2), opNe), opRefNull, funcRef, number(5), opBulk, 15, 0, opDrop)})
	add("table.copy", assembly{table: table, exports: declared, sections: map[byte][]byte{9: vec(code(0, number(0), opEnd, vec([]byte{0})))},
		functions: handle(full, number(1), number(0), number(1), opBulk, 14, 0, 0)})
	add("table.init", assembly{table: table, sections: map[byte][]byte{9: vec(code(1, 0, vec([]byte{0})))},
		functions: handle(full, number(1), number(0), number(1), opBulk, 12, 0, 0)})
	add("elem.drop", assembly{table: table, sections: map[byte][]byte{9: vec(code(1, 0, vec([]byte{0})))},
		functions: handle(full, number(1), number(0), number(1), opBulk, 12, 0, 0, opBulk, 13, 0)})
	data := map[byte][]byte{12: {1}, 11: vec(code(1, name("data")))}
	add("data.drop", assembly{sections: data, functions: handle(trapIf(number(0), opLoad, 2, 0), number(0), number(0), number(4), opBulk, 8, 0, 0, opBulk, 9, 0)})
	add("memory.init", assembly{sections: data, functions: handle(trapIf(number(8), opLoad, 2, 0), number(8), number(0), number(4), opBulk, 8, 0, 0)})
	add("memory.fill", assembly{functions: handle(trapIf(number(65532), opLoad, 2, 0), number(0), number(7), number(65536), opBulk, 11, 0)})
	add("memory.copy", assembly{sections: map[byte][]byte{11: vec(code(0, number(0), opEnd, name("data")))},
		functions: handle(trapIf(number(65000), opLoad, 2, 0), number(65000), number(0), number(4), opBulk, 10, 0, 0)})
	add("what it grew by", assembly{functions: handle(number(2), opMemoryGrow, 0, opDrop, trapIf(number(190_000), opLoad, 2, 0), number(190_000), number(7), opStore, 2, 0)})
	add("how much it grew by", assembly{functions: handle(trapIf(opMemorySize, 0, number(1), opNe), number(2), opMemoryGrow, 0, opDrop)})
	add("hidden memory", assembly{hidden: true, functions: handle(trapIf(number(8), opLoad, 2, 0), number(8), number(7), opStore, 2, 0)})
	add("locals after a deep recursion", assembly{functions: []function{
		handler(0, code(number(20_000), opCall, 1, opCall, 2)...),
		{params: []byte{i32}, locals: 20, code: code(opLocalGet, 0, opIf, blockVoid, number(0x5eadbee), opLocalSet, 20, opLocalGet, 0, number(1), opSub, opCall, 1, opEnd)},
		{results: []byte{i32}, locals: 2000, code: bytes.Join(func() (out [][]byte) {
			out = append(out, number(0))
			for i := range 2000 {
				out = append(out, code(opLocalGet, uleb(i), 0x72 /* i32.or */))
			}
			return out
		}(), nil)},
	}})
	add("what it did before the trap that it has on the second event", assembly{sections: globals(code(i32, 1, number(0), opEnd)),
		functions: handle(trapIf(opGlobalGet, 0), number(1), opGlobalSet, 0, number(0), number(1), opStore, 2, 0)})
	return all
}

func hostileHandlers() (all []hostile) {
	add := func(name string, at stage, wanted, text string, a assembly) {
		if a.pages == 0 {
			a.pages = 1
		}
		all = append(all, hostile{"handlers/" + name, wasm("m.wasm", a.bytes()), at, wanted, text})
	}
	handle := func(body ...any) []function { return []function{handler(2, code(append(body, number(0))...)...)} }
	again := func(body ...any) []byte { return code(opLoop, blockVoid, code(body...), opBr, 0, opEnd) }
	read, write, log := host("event_read", 2, 1), host("result_write", 2, 1), host("log", 3, 0)
	add("read past the event", nowhere, "", "", assembly{imports: []imported{read}, functions: handle(number(0), number(60_000), opCall, 0, opDrop)})
	add("read 2^32-1 bytes", nowhere, "", "", assembly{imports: []imported{read}, functions: handle(number(0), number(-1), opCall, 0, opDrop)})
	add("read to the last byte", atInvoke, "cell.bad_pointer", "event_read", assembly{imports: []imported{read}, functions: handle(number(65535), number(9), opCall, 0, opDrop)})
	add("write all memory", atInvoke, "cell.output_too_large", "1048576", assembly{imports: []imported{write}, pages: 17, functions: handle(number(0), number(17<<16), opCall, 0, opDrop)})
	add("write zeros", atInvoke, "cell.bad_result", "", assembly{imports: []imported{write}, functions: handle(number(0), number(100), opCall, 0, opDrop)})
	add("write without end", atInvoke, "cell.output_too_large", "1048576", assembly{imports: []imported{write}, functions: handle(again(number(0), number(65536), opCall, 0, opDrop))})
	add("write nothing without end", atInvoke, "cell.too_many_host_calls", "100000", assembly{imports: []imported{write}, functions: handle(again(number(0), number(0), opCall, 0, opDrop))})
	add("write -1 bytes", atInvoke, "cell.bad_pointer", "result_write", assembly{imports: []imported{write}, functions: handle(number(0), number(-1), opCall, 0, opDrop)})
	add("write past the end", atInvoke, "cell.bad_pointer", "result_write", assembly{imports: []imported{write}, functions: handle(number(65535), number(2), opCall, 0, opDrop)})
	add("pointer and length overflow", atInvoke, "cell.bad_pointer", "result_write", assembly{imports: []imported{write}, functions: handle(number(-4), number(8), opCall, 0, opDrop)})
	add("log past the end", atInvoke, "cell.bad_pointer", "log", assembly{imports: []imported{log}, functions: handle(number(9), number(65536), number(1), opCall, 0)})
	add("log without end", atInvoke, "cell.too_many_host_calls", "100000", assembly{imports: []imported{log}, functions: handle(again(number(-1), number(0), number(65536), opCall, 0))})
	add("table.grow without end", atInvoke, "cell.timeout", "100ms", assembly{table: vec([]byte{funcRef, 0, 1}), functions: handle(again(opRefNull, funcRef, number(1), opBulk, 15, 0, opDrop))})
	add("table.grow by 2^31", nowhere, "", "", assembly{table: vec([]byte{funcRef, 0, 1}), functions: handle(opRefNull, funcRef, number(-1<<31), opBulk, 15, 0, opDrop)})
	add("memory.fill without end", atInvoke, "cell.timeout", "100ms", assembly{pages: 200, functions: handle(again(number(0), number(7), number(200<<16), opBulk, 11, 0))})
	add("memory.grow by 2^31", atInvoke, "cell.memory", "16777216", assembly{functions: handle(number(40000), opMemoryGrow, 0, number(-1), 0x46, opIf, blockVoid, opUnreachable, opEnd)})
	add("indirect call of nothing", atInvoke, "cell.trap", "", assembly{table: vec([]byte{funcRef, 0, 1}), functions: handle(number(0), 0x11, 0, 0, opDrop)})
	add("indirect call outside", atInvoke, "cell.trap", "", assembly{table: vec([]byte{funcRef, 0, 1}), functions: handle(number(-1), 0x11, 0, 0, opDrop)})
	add("endless tail call", atInvoke, "cell.timeout", "100ms", assembly{functions: []function{handler(0, 0x12, 0)}})
	add("a conversion of not a number", atInvoke, "cell.trap", "", assembly{functions: handle(0x43, []byte{0, 0, 0xc0, 0x7f}, 0xa8, opDrop)})
	add("the lowest number divided by -1", atInvoke, "cell.trap", "", assembly{functions: handle(number(-1<<31), number(-1), opDivide, opDrop)})
	exit := wasi("proc_exit", "i")
	for code, want := range map[int32]string{3: "code 3", -1: "", -2: ""} {
		add(fmt.Sprintf("exit with %d", code), atInvoke, "", want, assembly{imports: []imported{exit}, functions: handle(number(code), opCall, 0)})
	}
	add("exit with 0", nowhere, "", "", assembly{imports: []imported{exit}, functions: handle(number(0), opCall, 0)})
	add("50,000 locals in a recursion", atInvoke, "cell.stack_overflow", "", assembly{functions: []function{{export: "sallyport_handle", results: []byte{i32}, locals: 49_000, code: code(opCall, 0)}}})
	add("50,001 locals", atLoad, codeInvalid, "locals", assembly{functions: []function{{export: "sallyport_handle", results: []byte{i32}, locals: 50_001, code: number(0)}}})
	add("16,385 blocks in each other", atLoad, codeInvalid, "nest", assembly{functions: []function{handler(0, code(bytes.Repeat([]byte{opLoop, blockVoid}, 1<<14+1), bytes.Repeat([]byte{opEnd}, 1<<14+1), number(0))...)}})
	add("atomics", atLoad, codeInvalid, "", assembly{functions: handle(number(0), 0xfe, 0x10, 2, 0, opDrop)})
	add("relaxed vectors", atLoad, codeInvalid, "", assembly{functions: handle(opVector, uleb(0x100))})
	add("exceptions", atLoad, codeInvalid, "", assembly{functions: handle(0x1f, blockVoid, 0, opEnd)})
	add("throw", atLoad, codeInvalid, "", assembly{functions: handle(0x08, 0)})
	add("unknown instruction", atLoad, codeInvalid, "", assembly{functions: handle(0xff)})
	add("ill typed", atLoad, codeInvalid, "", assembly{functions: handle(opConst64, 0, opDrop, opDrop)})
	add("global of the host set", atLoad, codeInvalid, "", assembly{functions: handle(number(0), opGlobalSet, 1)})
	add("fuel of the host set", atLoad, codeInvalid, "", assembly{functions: handle(number(-1), opGlobalSet, 0)})
	return all
}
