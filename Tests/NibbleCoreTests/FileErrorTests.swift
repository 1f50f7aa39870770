import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// Failures of the file system are told in our words.
@Suite struct FileErrorTests {
    private func expectReason(_ reason: String, _ operation: FileError.Operation, _ path: URL, _ body: () throws -> Void) {
        #expect(throws: FileError(path: path.path, operation, reason: reason), performing: body)
    }

    @Test("files that are missing, folders in place of files, and a file in place of a folder") func reasons() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let missing = folder.appending(path: "missing")
        let file = folder.appending(path: "file")
        try Files.write(Data("text".utf8), to: file)
        expectReason("no such file or directory", .read, missing) { _ = try Files.data(of: missing) }
        expectReason("no such file or directory", .listed, missing) { _ = try Files.names(in: missing) }
        expectReason("is a directory", .read, folder) { _ = try Files.data(of: folder) }
        expectReason("a file of that name exists", .created, file) { try Files.makeFolder(file) }
        let below = missing.appending(path: "below")
        expectReason("no such file or directory", .written, below) { try Files.write(Data(), to: below) }
        #expect(try Files.text(of: file) == "text")
    }

    @Test("text that is not UTF-8 is refused") func encoding() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "latin1")
        try Files.write(Data([0x63, 0x61, 0x66, 0xE9]), to: file)
        expectReason("it is not UTF-8 text", .read, file) { _ = try Files.text(of: file) }
    }

    @Test(
        "every code has a reason that says nothing of Foundation",
        arguments: [
            CocoaError(.fileNoSuchFile), CocoaError(.fileReadNoPermission), CocoaError(.fileWriteFileExists),
            CocoaError(.fileWriteOutOfSpace), CocoaError(.fileReadUnknown), CocoaError(.featureUnsupported),
        ])
    func codes(error: CocoaError) {
        let text = "\(FileError(URL(filePath: "/folder/file"), .written, error))"
        #expect(text.hasPrefix("/folder/file cannot be written: "))
        #expect(!text.contains("Domain") && !text.contains("Error"))
    }
}
