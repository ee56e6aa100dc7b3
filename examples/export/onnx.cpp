// Runs one exported agent with ONNX Runtime. Not built by the tests.
//   g++ -std=c++17 onnx.cpp -I$ORT/include -L$ORT/lib -lonnxruntime -o agent && ./agent team/agent_0/policy.onnx
#include <onnxruntime_cxx_api.h>

#include <iostream>
#include <random>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: agent policy.onnx\n";
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "agent");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, argv[1], options);

  // Shapes are (batch, obs) and (batch, rows, act); the batch axis is free, here 1.
  auto shape = [&](size_t input) {
    auto dims = session.GetInputTypeInfo(input).GetTensorTypeAndShapeInfo().GetShape();
    dims[0] = 1;
    return dims;
  };
  auto obs_shape = shape(0), noise_shape = shape(1);
  std::vector<float> obs(obs_shape[1], 0.0f);  // raw observation; with a history, stacked frames
  std::vector<float> noise(noise_shape[1] * noise_shape[2]);
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  for (auto& x : noise) x = normal(random);  // zeros give the noise-free action

  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, obs.data(), obs.size(), obs_shape.data(), 2));
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, noise.data(), noise.size(), noise_shape.data(), 3));
  const char *in[] = {"obs", "noise"}, *out[] = {"action"};
  auto outputs = session.Run(Ort::RunOptions{nullptr}, in, inputs.data(), 2, out, 1);
  const float* action = outputs[0].GetTensorData<float>();
  for (int64_t i = 0; i < noise_shape[2]; ++i) std::cout << action[i] << "\n";  // in the env's own box
}
