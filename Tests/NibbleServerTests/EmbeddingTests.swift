import Foundation
import Nibble
import NibbleCore
import NibbleModels
import NibbleServer
import NibbleTestSupport
import Testing

/// /v1/embeddings over an engine.
@Suite struct EmbeddingTests {
    private static let texts = ["Once upon a time", "The dog ran to the park.", "Lily"]

    /// How far apart two directions are.
    private static func cosine(_ a: [Float], _ b: [Float]) -> Double {
        func product(_ a: [Float], _ b: [Float]) -> Double { zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) } }
        return product(a, b) / (product(a, a) * product(b, b)).squareRoot()
    }

    private static func vector(_ value: JSONValue?) -> [Float] { value?.array?.compactMap { $0.double.map { Float($0) } } ?? [] }

    /// The head is linear: logits of a pooled hidden state are the pooled logits, up to its length.
    private static func logits(_ vector: [Float], _ real: RealModel) throws -> [Float] {
        let table = try #require(real.model.weights.tensors["transformer.word_embeddings.weight"])
        let values = withExtendedLifetime(table) { Array(table.hostElements(Float.self)) }
        return (0..<table.shape[0]).map { row in
            vector.indices.reduce(Float(0)) { $0 + vector[$1] * values[row * vector.count + $1] }
        }
    }

    private static func pooledLogits(_ ids: [Int32], _ pooling: Pooling, _ real: RealModel) throws -> [Float] {
        let tensor = try real.model.forward(inputIDs: [ids]).logits
        let logits = withExtendedLifetime(tensor) { Array(tensor.hostElements(Float.self)) }
        let size = real.model.vocabularySize
        let rows = pooling == .last ? ids.count - 1..<ids.count : 0..<ids.count
        return (0..<size).map { column in rows.reduce(Float(0)) { $0 + logits[$1 * size + column] } }
    }

    @Test("vectors are the pooled hidden states, also of texts of several chunks", arguments: [Pooling.last, .mean], [1, 200])
    func hiddenStates(pooling: Pooling, repeats: Int) async throws {
        let real = try RealModel.stories
        let ids = (0..<repeats).flatMap { _ in real.tokenizer.encode(Self.texts[1], addSpecialTokens: false) }
        let engine = try await real.model.engine(EngineConfiguration(maxBatch: 1, context: 2048))
        let vector = try await engine.embeddings(of: [ids], pooling)[0]
        #expect(vector.count == 256)
        let similarity = try Self.cosine(Self.logits(vector, real), Self.pooledLogits(ids, pooling, real))
        #expect(similarity > 0.99999)
    }

    @Test("floats and base64 are the same vectors of length 1; dimensions cut them")
    func forms() async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let input = JSONValue.array(Self.texts.map { .string($0) })
            let json = try await server.json("/v1/embeddings", ["model": "stories", "input": input])
            #expect(json["data"]?.array?.compactMap { $0["index"]?.int } == [0, 1, 2])
            let vectors = json["data"]?.array?.map { Self.vector($0["embedding"]) } ?? []
            for vector in vectors { #expect(abs(vector.reduce(0) { $0 + $1 * $1 } - 1) < 1e-4) }
            #expect(json["usage"]?["prompt_tokens"]?.int ?? 0 > 3)
            let coded = try await server.json("/v1/embeddings", ["input": input, "encoding_format": "base64"])
            for (index, vector) in vectors.enumerated() {
                let text = try #require(coded["data"]?[index]?["embedding"]?.string)
                let data = try #require(Data(base64Encoded: text))
                let values = data.withUnsafeBytes { bytes in
                    (0..<bytes.count / 4).map {
                        Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
                    }
                }
                #expect(values == vector)
            }
            let cut = try await server.json("/v1/embeddings", ["input": .string(Self.texts[0]), "dimensions": 16])
            let short = Self.vector(cut["data"]?[0]?["embedding"])
            #expect(short.count == 16)
            #expect(Self.cosine(short, Array(vectors[0].prefix(16))) > 0.999999)
            #expect(abs(short.reduce(0) { $0 + $1 * $1 } - 1) < 1e-4)
            let ids = try await server.json("/tokenize", ["prompt": .string(Self.texts[0])])["tokens"] ?? []
            let tokens = try await server.json("/v1/embeddings", ["input": ids])
            #expect(Self.vector(tokens["data"]?[0]?["embedding"]) == vectors[0])
        }
    }

    @Test("embeddings run beside answers, and neither changes the other")
    func besideAnswers() async throws {
        let real = try RealModel.stories
        let expected = try await real.generated("The dog", GenerationConfig(maxNewTokens: 60, doSample: false))[0].text
        try await TestServer.with(real) { server, _ in
            let alone = Self.vector(try await server.json("/v1/embeddings", ["input": "Lily"])["data"]?[0]?["embedding"])
            try await withThrowingTaskGroup { group in
                for _ in 0..<3 {
                    group.addTask {
                        let json = try await server.json(
                            "/v1/completions", ["prompt": "The dog", "max_tokens": 60, "temperature": 0])
                        #expect(json["choices"]?[0]?["text"]?.string == expected)
                    }
                    group.addTask {
                        let long = JSONValue.array(Array(repeating: "Lily", count: 20))
                        let json = try await server.json("/v1/embeddings", ["input": long])
                        #expect(json["data"]?.array?.allSatisfy { Self.vector($0["embedding"]) == alone } == true)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test(arguments: [
        (#"{}"#, "input"), (#"{"input":[]}"#, "input"), (#"{"input":"a","encoding_format":"int8"}"#, "encoding_format"),
        (#"{"input":"a","dimensions":257}"#, "dimensions"), (#"{"input":[5000]}"#, "input[0]"), (#"{"input":""}"#, "input"),
    ])
    func refusals(body: String, param: String) async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let answer = try await server.send("/v1/embeddings", body)
            #expect(answer.status == 400)
            #expect(try answer.json()["error"]?["param"]?.string == param)
        }
    }

    @Test("a text that is too long is refused with both numbers, and cut only where that is asked for")
    func tooLong() async throws {
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 1, context: 32)) { server, _ in
            let text = String(repeating: "word ", count: 60)
            let answer = try await server.send("/api/embed", #"{"model":"stories","input":"\#(text)"}"#)
            #expect(answer.status == 400)
            #expect(try answer.json()["error"]?.string?.contains("32") == true)
            let cut = try await server.json("/api/embed", ["model": "stories", "input": .string(text), "truncate": true])
            #expect(cut["prompt_eval_count"] == 32)
            #expect(Self.vector(cut["embeddings"]?[0]).count == 256)
        }
    }

    @Test("an encoder-decoder says that it makes none")
    func encoderDecoder() async throws {
        try await TestServer.with(RealModel.spelling) { server, _ in
            let answer = try await server.send("/v1/embeddings", #"{"input":"a"}"#)
            #expect(answer.status == 400)
            #expect(try answer.json()["error"]?["code"] == "unsupported_model")
        }
    }
}
