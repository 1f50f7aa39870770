import NibbleCore
import NibbleModels
import Testing

/// Names of modules and tensors are compared byte by byte.
@Suite struct NameTests {
    // Swift's String holds the Kelvin sign for equal to K, and an accent joins the character before it.
    private static let kelvin = "\u{212A}"

    @Test("a module is found by its own name only")
    func modules() {
        let leaf = ModuleNode("K", "Linear", kind: .linear)
        let tree = ModuleTree(root: ModuleNode("", "Root", children: [leaf]), noSplitClasses: [])
        #expect(tree.module(at: "K") != nil)
        #expect(tree.module(at: Self.kelvin) == nil)
        #expect(tree.module(at: "K.") != nil)
    }

    @Test("prefixes and endings of keys end at bytes")
    func keys() {
        let keys = CheckpointKeys(basePrefix: "model", ignoredSuffixes: ["K"])
        #expect(keys.isIgnored("a.K") && keys.isIgnored("K"))
        #expect(!keys.isIgnored("a.\(Self.kelvin)") && !keys.isIgnored(Self.kelvin) && !keys.isIgnored("aK"))
        let known = "\u{301}weight"
        #expect(keys.parameter(for: "model.\(known)") { $0.utf8.elementsEqual(known.utf8) } == known)
        #expect(keys.parameter(for: "weight") { $0 == "model.weight" } == "model.weight")
        #expect(keys.parameter(for: "weight") { _ in false } == nil)
    }
}
