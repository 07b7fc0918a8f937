// Query, back query and saliency of a network: the equations of jaxnn, in double precision.

const ACTIVATIONS = {
  sigmoid: { low: 0, high: 1, f: (x) => 1 / (1 + Math.exp(-x)), derivative: (y) => y * (1 - y), inverse: (y) => Math.log(y / (1 - y)) },
  tanh: { low: -1, high: 1, f: Math.tanh, derivative: (y) => 1 - y * y, inverse: Math.atanh },
  identity: { low: -Infinity, high: Infinity, f: (x) => x, derivative: () => 1, inverse: (y) => y },
};

// The elements of an array, from little-endian bytes in base64.
function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// A network in the format of the page: {name, about, layers: [{inputs, outputs, kernel, bias, activation}],
// typical}.
function decode(written) {
  const layers = written.layers.map((layer) => ({
    ...layer,
    kernel: floats(layer.kernel),
    bias: layer.bias === null ? new Float32Array(layer.outputs) : floats(layer.bias),
  }));
  return { ...written, layers, typical: floats(written.typical) };
}

// The typical image of a digit.
function typical(network, digit) {
  const size = network.layers[0].inputs;
  return network.typical.subarray(digit * size, (digit + 1) * size);
}

// The outputs of each layer, the inputs first.
function query(network, x) {
  const values = [Float64Array.from(x)];
  for (const { inputs, outputs, kernel, bias, activation } of network.layers) {
    const signal = Float64Array.from(bias);
    const below = values[values.length - 1];
    for (let i = 0; i < inputs; i++) {
      for (let k = 0; k < outputs; k++) signal[k] += below[i] * kernel[i * outputs + k];
    }
    values.push(signal.map(ACTIVATIONS[activation].f));
  }
  return values;
}

// The product of the weights of a layer with a vector over its outputs.
function transposed({ inputs, outputs, kernel }, vector) {
  const sums = new Float64Array(inputs);
  for (let i = 0; i < inputs; i++) {
    for (let k = 0; k < outputs; k++) sums[i] += kernel[i * outputs + k] * vector[k];
  }
  return sums;
}

function rescale(values, low, high) {
  const least = Math.min(...values), most = Math.max(...values);
  if (most === least) return values.map(() => (low + high) / 2);
  return values.map((v) => low + ((high - low) * (v - least)) / (most - least));
}

// The back query of an output by the transposed weights, in [margin, 1 - margin].
function backquery(network, y, margin = 0.01) {
  let value = Float64Array.from(y);
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const { bias, activation } = network.layers[l];
    const signal = value.map((v, k) => ACTIVATIONS[activation].inverse(v) - bias[k]);
    const { low, high } = l > 0 ? ACTIVATIONS[network.layers[l - 1].activation] : { low: 0, high: 1 };
    const back = transposed(network.layers[l], signal);
    const inset = margin * (high - low);
    value = Number.isFinite(inset) ? rescale(back, low + inset, high - inset) : back;
  }
  return value;
}

// The gradient of one output with respect to the inputs, from the values of `query`.
function saliency(network, values, target) {
  let gradient = new Float64Array(values[values.length - 1].length);
  gradient[target] = 1;
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const { derivative } = ACTIVATIONS[network.layers[l].activation];
    gradient = transposed(network.layers[l], gradient.map((g, k) => g * derivative(values[l + 1][k])));
  }
  return gradient;
}
