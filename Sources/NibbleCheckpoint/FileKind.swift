/// What the first bytes of a file say it is, whatever its name says.
enum FileKind: Sendable {
    case gguf, zip, safetensors
    /// A clone made without large-file support leaves a short text in place of each weight file.
    case gitLFSPointer
    /// A server answered a download with a page: a sign-in form, an error.
    case webPage
    case xml, json

    init?(_ file: MappedFile) {
        let bytes = file.bytes
        if bytes.starts(with: "GGUF".utf8) {
            self = .gguf
        } else if bytes.starts(with: "version https://git-lfs".utf8) {
            self = .gitLFSPointer
        } else if bytes.count > 8, bytes[8] == UInt8(ascii: "{"), bytes[4..<8].allSatisfy({ $0 == 0 }) {
            self = .safetensors
        } else if bytes.starts(with: [0x50, 0x4B, 0x03, 0x04]) {
            self = .zip
        } else if let text = FileKind(text: bytes.prefix(1024)) {
            self = text
        } else {
            return nil
        }
    }

    /// - Parameter bytes: the beginning of the file. A zero byte means that it is no text: the length of a safetensors
    ///   header may begin with a `{`.
    private init?(text bytes: Slice<UnsafeRawBufferPointer>) {
        guard bytes.prefix(8).allSatisfy({ $0 != 0 }) else { return nil }
        let isIgnored: (UInt8) -> Bool = { [0x20, 0x09, 0x0A, 0x0D, 0xEF, 0xBB, 0xBF].contains($0) }
        let start = String(decoding: bytes.drop(while: isIgnored), as: UTF8.self).lowercased()
        if start.hasPrefix("<"), start.contains("<html") || start.hasPrefix("<!doctype html") || start.hasPrefix("<head") {
            self = .webPage
        } else if start.hasPrefix("<?xml") || start.hasPrefix("<error") {
            self = .xml
        } else if start.hasPrefix("{") {
            self = .json
        } else {
            return nil
        }
    }

    /// Ends "the file is …" in an error message, with what to do about it.
    private var explanation: String {
        switch self {
        case .gitLFSPointer: "it is a Git LFS pointer, not the file it stands for; `git lfs pull` fetches that"
        case .webPage:
            "it is a web page, not weights; download the file again (a page may need a sign-in, or /resolve/ in its address)"
        case .xml: "it is XML, not weights: perhaps a server's error message; download the file again"
        case .json: "it is JSON, not weights"
        case .zip: "it is a zip archive, as torch.save writes it; name it pytorch_model.bin"
        case .safetensors: "it is a safetensors file; name it model.safetensors"
        case .gguf: "it is a GGUF file; give its own path in place of the folder's"
        }
    }

    /// Refuses a file that is evidently of another kind than its name says.
    static func require(_ expected: FileKind?, _ file: MappedFile) throws {
        guard let found = FileKind(file), found != expected else { return }
        throw CheckpointError.refused(file: file.path, what: found.explanation)
    }
}
