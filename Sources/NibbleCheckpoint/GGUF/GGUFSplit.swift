import Foundation
import NibbleCore

/// The keys of a GGUF file that is one part of a model (`NAME-00002-of-00003.gguf`).
struct GGUFSplit {
    /// Counted from zero.
    let number: Int
    let count: Int

    /// `nil` for a model in one file.
    /// - Throws: ``CheckpointError/malformed(file:tensor:expected:found:)``
    init?(_ metadata: [ByteText: GGUFValue], _ file: MappedFile) throws {
        guard let value = metadata["split.count"] else { return nil }
        guard let count = value.int, (0...99_999).contains(count) else {
            throw file.malformed(expected: "a number of parts as split.count", found: "\(value)")
        }
        guard count > 1 else { return nil }
        guard let number = metadata["split.no"]?.int, (0..<count).contains(number) else {
            throw file.malformed(
                expected: "a number below \(count) as split.no", found: metadata["split.no"].map { "\($0)" } ?? "none")
        }
        (self.number, self.count) = (number, count)
    }

    /// All parts of the model, in order.
    /// - Parameters:
    ///   - opened: the part with these keys.
    ///   - header: of that part.
    /// - Throws: ``CheckpointError``.
    func parts(_ opened: MappedFile, _ header: GGUFHeader) throws -> [(file: MappedFile, header: GGUFHeader)] {
        try (0..<count).map { index in
            guard index != number else { return (opened, header) }
            let url = opened.url.deletingLastPathComponent().appending(path: try name(of: index, besides: opened))
            guard FileManager.default.fileExists(atPath: url.path) else {
                throw CheckpointError.refused(
                    file: opened.path,
                    what:
                        "it is part \(number + 1) of \(count) of a model, and \(url.lastPathComponent.printable()) is not beside it"
                )
            }
            let file = try MappedFile(url)
            let header = try GGUFHeader(file)
            guard let split = try GGUFSplit(header.metadata, file), split.number == index, split.count == count else {
                throw CheckpointError.refused(
                    file: file.path, what: "it should be part \(index + 1) of \(count), but its header says otherwise")
            }
            return (file, header)
        }
    }

    private func name(of index: Int, besides opened: MappedFile) throws -> String {
        let name = opened.url.lastPathComponent
        let ending = name.wholeMatch(of: #/(?<stem>.*)-\d{5}-of-\d{5}(?<extension>\.[Gg][Gg][Uu][Ff])/#)
        guard let ending else {
            throw CheckpointError.refused(
                file: opened.path,
                what: "it is part \(number + 1) of \(count) of a model; its name must end in "
                    + "\(Self.suffix(number, of: count)).gguf, so that the others can be found")
        }
        return "\(ending.output.stem)\(Self.suffix(index, of: count))\(ending.output.extension)"
    }

    private static func suffix(_ index: Int, of count: Int) -> String {
        func padded(_ number: Int) -> String { String(repeating: "0", count: 5 - "\(number)".count) + "\(number)" }
        return "-\(padded(index + 1))-of-\(padded(count))"
    }
}
